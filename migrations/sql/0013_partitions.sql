-- Collections that are partitioned by hash of the id. Plugins name the partition of a row, so the registry has the partitions
-- of each span: whoever reads the WAL finds the collection by any of them. A span's partitions never change.

-- Rows of the registry that this transaction has written would keep it from being altered.
SET CONSTRAINTS pgdoc.pgdoc_order IMMEDIATE;
SET CONSTRAINTS pgdoc.pgdoc_order DEFERRED;

ALTER TABLE pgdoc.registry ADD COLUMN partitions jsonb;
COMMENT ON COLUMN pgdoc.registry.partitions IS 'the names of a collection''s partitions by their oids; NULL if it has none';

-- Only those that writers of the collection can reach, and readers through wal2json, who ask for the tables of a schema.
CREATE FUNCTION pgdoc.partitions_of(relation oid) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_object_agg(i.inhrelid::text, c.relname)
  FROM pg_class root JOIN pg_inherits i ON i.inhparent = root.oid JOIN pg_class c ON c.oid = i.inhrelid
  WHERE root.oid = relation AND root.relkind = 'p' AND c.relkind = 'r' AND c.relnamespace = root.relnamespace AND NOT i.inhdetachpending
$$;
COMMENT ON FUNCTION pgdoc.partitions_of IS 'the names of a table''s partitions by their oids; NULL if it has none';

CREATE FUNCTION pgdoc.note_partitions() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.partitions := pgdoc.partitions_of(NEW.oid);
  RETURN NEW;
END $$;
CREATE TRIGGER pgdoc_partitions BEFORE INSERT ON pgdoc.registry FOR EACH ROW WHEN (NEW.kind = 'collection')
  EXECUTE FUNCTION pgdoc.note_partitions();

CREATE FUNCTION pgdoc.partition_fault(relation oid) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known jsonb := (SELECT r.partitions FROM pgdoc.registry r WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'collection');
  number bigint := (SELECT count(*) FROM pg_inherits WHERE inhparent = relation);
  fault text;
BEGIN
  IF NOT EXISTS (
      SELECT FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
      WHERE p.partrelid = relation AND p.partstrat = 'h' AND p.partnatts = 1 AND a.attname = 'id') THEN
    RETURN 'it is not partitioned by hash of its id alone: only PARTITION BY HASH (id) keeps a document in one partition';
  ELSIF known <> coalesce(pgdoc.partitions_of(relation), '{}') AND pgdoc.is_bound() THEN
    RETURN 'its partitions can''t be added, removed, moved or renamed: those who read its changes know it by them';
  ELSIF number NOT BETWEEN 1 AND 256 THEN
    RETURN format('it has %s partitions: 1 to 256 are possible', number);
  END IF;
  SELECT format('its partition %s %s', c.oid::regclass, found.fault) INTO fault
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class root ON root.oid = i.inhparent,
    LATERAL (SELECT CASE
      WHEN i.inhdetachpending THEN 'is being detached'
      WHEN c.relkind <> 'r' THEN 'is not a plain table'
      WHEN c.relpersistence <> 'p' THEN 'is unlogged'
      WHEN c.relnamespace <> root.relnamespace THEN 'is in another schema'
      WHEN strpos(c.relname, '.') > 0 THEN 'has a dot in its name'
      WHEN pgdoc.is_table(c.oid) THEN format('is watched as a table: run SELECT pgdoc.remove_table(%L) first', c.oid::regclass::text)
      WHEN substring(pg_get_expr(c.relpartbound, c.oid) FROM '(?i)modulus ([0-9]+)')::bigint <> number
        THEN format('has another modulus than the number of partitions, which is %s', number)
    END AS fault) AS found
  WHERE i.inhparent = relation AND found.fault IS NOT NULL
  ORDER BY c.relname LIMIT 1;
  RETURN fault;
END $$;
COMMENT ON FUNCTION pgdoc.partition_fault IS 'why a partitioned table can not be a collection; NULL if it can';

CREATE OR REPLACE FUNCTION pgdoc.form_fault(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN c.relkind NOT IN ('r', 'p') OR c.relispartition OR EXISTS (
      SELECT FROM pg_inherits WHERE inhrelid = c.oid OR c.relkind = 'r' AND inhparent = c.oid) THEN 'it is not a plain table'
    WHEN c.relkind = 'p' AND pgdoc.partition_fault(c.oid) IS NOT NULL THEN pgdoc.partition_fault(c.oid)
    WHEN c.relpersistence <> 'p' THEN 'it is temporary or unlogged'
    WHEN pgdoc.is_table(c.oid) THEN format('it is watched as a table: run SELECT pgdoc.remove_table(%L) first', c.oid::regclass::text)
    WHEN (SELECT count(*) < 6 FROM pg_attribute a
          WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attnotnull AND a.attgenerated = ''
            AND (a.attname = 'id' AND a.atttypid = 'text'::regtype
              OR a.attname = 'data' AND a.atttypid = 'jsonb'::regtype
              OR a.attname IN ('version', 'replaced_version') AND a.atttypid = 'bigint'::regtype AND a.atthasdef
              OR a.attname IN ('created_at', 'updated_at') AND a.atttypid = 'timestamptz'::regtype AND a.atthasdef))
      THEN 'it needs the columns id text, data jsonb, version bigint DEFAULT 1, replaced_version bigint DEFAULT 1, '
        'created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), all of them NOT NULL'
    WHEN NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id'
                     WHERE i.indrelid = c.oid AND i.indisprimary AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
      THEN 'its primary key is not the column id'
    WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = 'v')
      THEN 'it has a virtual generated column, with which its updates would fail: declare the column STORED'
  END
  FROM pg_class c WHERE c.oid = relation
$$;

-- A TRUNCATE of the collection truncates each partition in one WAL record, which readers take for one event. A single partition
-- would look the same: it may only be truncated with the rest. PostgreSQL fires the root's trigger first. The setting can be
-- forged, so a role that may not truncate the collection may not truncate a partition either.
CREATE FUNCTION pgdoc.check_truncate() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  root oid := (SELECT inhparent FROM pg_inherits WHERE inhrelid = TG_RELID);
BEGIN
  IF root IS NULL THEN
    PERFORM set_config('pgdoc.truncating', CASE TG_WHEN WHEN 'BEFORE' THEN TG_RELID::text ELSE '' END, true);
  ELSIF current_setting('pgdoc.truncating', true) IS DISTINCT FROM root::text OR NOT has_table_privilege(root, 'TRUNCATE') THEN
    RAISE EXCEPTION 'table % can''t be truncated by itself: it is a partition of the collection %', TG_RELID::regclass, root::regclass
      USING ERRCODE = 'PGD03', HINT = 'DELETE its documents, or truncate the collection in a statement of its own.';
  END IF;
  RETURN NULL;
END $$;

-- See 0007_registry.sql: each partition must have what its root has. PostgreSQL gives it the checks and the triggers on rows.
CREATE OR REPLACE FUNCTION pgdoc.is_equipped(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT bool_and(part.relreplident = 'f' AND 2 = (
    SELECT count(*) FROM pg_constraint k
    WHERE k.conrelid = part.oid AND k.contype = 'c' AND k.convalidated AND k.conname IN ('pgdoc_id', 'pgdoc_data')
  ) AND CASE c.relkind WHEN 'p' THEN 3 ELSE 2 END = (
    SELECT count(*) FROM pg_trigger t
    WHERE t.tgrelid = part.oid AND t.tgenabled IN ('O', 'A') AND (
      t.tgname = 'pgdoc_before_update' AND t.tgfoid = 'pgdoc.before_update()'::regprocedure
      OR t.tgname = 'pgdoc_after_insert' AND t.tgfoid = 'pgdoc.refuse_insert()'::regprocedure
      OR t.tgname = 'pgdoc_before_truncate' AND t.tgfoid = 'pgdoc.check_truncate()'::regprocedure AND c.relkind = 'p')))
  FROM pg_class c JOIN pg_class part ON part.oid = c.oid OR part.oid IN (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = c.oid)
  WHERE c.oid = relation
$$;

CREATE OR REPLACE FUNCTION pgdoc.equip_collection(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  missing record;
  partition regclass;
BEGIN
  EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', relation);
  FOR missing IN
    SELECT wanted.name, wanted.condition
    FROM (VALUES ('pgdoc_id', 'octet_length(id) BETWEEN 1 AND 1024'),
                 ('pgdoc_data', 'jsonb_typeof(data) = ''object'' AND NOT data ? ''_id''')) AS wanted(name, condition)
    WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = relation AND k.contype = 'c' AND k.conname = wanted.name)
  LOOP
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%s)', relation, missing.name, missing.condition);
  END LOOP;
  EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_before_update BEFORE UPDATE ON %s '
    'FOR EACH ROW EXECUTE FUNCTION pgdoc.before_update()', relation);
  EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgdoc_before_update', relation);
  EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_after_insert AFTER INSERT ON %s FOR EACH ROW '
    'WHEN (NEW.version <> 1 OR NEW.replaced_version <> 1 OR NEW.created_at <> now() OR NEW.updated_at <> now()) '
    'EXECUTE FUNCTION pgdoc.refuse_insert()', relation);
  FOR partition IN SELECT i.inhrelid::regclass FROM pg_inherits i WHERE i.inhparent = relation ORDER BY i.inhrelid LOOP
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', partition);  -- the root's is not passed on
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgdoc_before_update, ENABLE TRIGGER pgdoc_after_insert', partition);
    EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_before_truncate BEFORE TRUNCATE ON %s '
      'FOR EACH STATEMENT EXECUTE FUNCTION pgdoc.check_truncate()', partition);
  END LOOP;
  IF FOUND THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_before_truncate BEFORE TRUNCATE ON %s '
      'FOR EACH STATEMENT EXECUTE FUNCTION pgdoc.check_truncate()', relation);
    EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_after_truncate AFTER TRUNCATE ON %s '
      'FOR EACH STATEMENT EXECUTE FUNCTION pgdoc.check_truncate()', relation);
  END IF;
END $$;

-- See 0010_registry.sql. It drops the triggers that PostgreSQL does not pass on to partitions, too.
CREATE OR REPLACE FUNCTION pgdoc.unregister(relation regclass) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was_collection boolean := pgdoc.is_collection(relation);
  partition regclass;
BEGIN
  PERFORM pgdoc.lock_followed(relation);
  IF pgdoc.is_table(relation) THEN
    RAISE EXCEPTION 'table % is watched as it is, and is no collection', relation
      USING ERRCODE = 'wrong_object_type', HINT = format('To end the watching of it, run SELECT pgdoc.remove_table(%L).', relation::text);
  END IF;
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_after_insert ON %s', relation);
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_before_update ON %s', relation);
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_before_truncate ON %s', relation);
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_after_truncate ON %s', relation);
  FOR partition IN SELECT i.inhrelid::regclass FROM pg_inherits i WHERE i.inhparent = relation LOOP
    EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_before_truncate ON %s', partition);
  END LOOP;
  PERFORM pgdoc.withdraw(relation);
  PERFORM pgdoc.follow_own_ddl(relation);
  RETURN was_collection;
END $$;

-- A partitioned table is locked with its partitions, which SQL can write to directly.
CREATE OR REPLACE FUNCTION pgdoc.lock_table(relation regclass, mode text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found text;
  only_it text := CASE (SELECT relkind FROM pg_class WHERE oid = relation) WHEN 'p' THEN '' ELSE 'ONLY ' END;
BEGIN
  FOR attempt IN 1 .. 10 LOOP
    found := relation::text;
    EXIT WHEN found ~ '^[0-9]+$';  -- it was dropped: this is its oid
    IF to_regclass(found) = relation THEN
      BEGIN
        EXECUTE format('LOCK TABLE %s%s IN %s MODE', only_it, found, mode);
        IF relation::text = found THEN
          RETURN;
        END IF;
      EXCEPTION WHEN undefined_table OR invalid_schema_name THEN
        NULL;
      END;
    END IF;
  END LOOP;
  RAISE EXCEPTION 'table % was dropped or renamed at the same time', relation
    USING ERRCODE = 'undefined_table', HINT = 'Run it again.';
END $$;

-- See 0010_registry.sql. A collection whose partitions are not those of its span any more has lost its form.
CREATE OR REPLACE FUNCTION pgdoc.registry_changes(among oid[]) RETURNS TABLE (
  row_id tid, oid oid, schema_name text, name text, new_schema text, new_name text, change text
) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM (
    SELECT r.ctid, r.oid, r.schema_name, r.name, n.nspname::text, c.relname::text,
      CASE
        WHEN c.oid IS NULL THEN 'drop'
        WHEN r.kind = 'collection' AND t.oid IS NULL THEN 'unregister'
        WHEN r.partitions IS NOT NULL AND r.partitions IS DISTINCT FROM pgdoc.partitions_of(c.oid) THEN 'unregister'
        WHEN r.kind = 'table' AND (r.print <> now.print OR n.nspname <> r.schema_name) AND pgdoc.table_fault(c.oid, r.document) IS NOT NULL
          THEN 'unregister'
        WHEN n.nspname <> r.schema_name THEN 'move'
        WHEN c.relname <> r.name THEN 'rename'
        WHEN r.print <> now.print OR r.kind = 'table' AND among IS NOT NULL AND pgdoc.table_columns(c.oid) <> r.columns THEN 'alter'
      END AS change
    FROM pgdoc.registry r LEFT JOIN pg_class c ON c.oid = r.oid AND (c.relkind = 'r' OR c.relkind = 'p' AND r.partitions IS NOT NULL)
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'
      LEFT JOIN pgdoc.table_prints(ARRAY(
        SELECT w.oid FROM pgdoc.registry w WHERE w.until IS NULL AND w.kind = 'table' AND (among IS NULL OR w.oid = ANY (among)))
      ) AS now ON now.oid = r.oid
    WHERE r.until IS NULL AND (among IS NULL OR r.oid = ANY (among))
  ) AS found
  WHERE found.change IS NOT NULL
$$;

-- See 0010_tables.sql. The changes of a partition are those of its collection.
CREATE OR REPLACE FUNCTION pgdoc.table_fault(relation regclass, document text DEFAULT NULL) RETURNS text[] LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT CASE
      WHEN root.name IS NOT NULL THEN ARRAY[format('it is a partition of the collection %s', root.name), 'watch the collection by its name']
      WHEN c.relkind = 'p' AND EXISTS (SELECT FROM pgdoc.registry r WHERE r.oid = c.oid AND r.until IS NULL AND r.kind = 'collection')
        THEN ARRAY['it is a collection', 'watch it by its name']
      WHEN c.relkind = 'p' THEN ARRAY['it is a partitioned table', 'add each of its partitions, such as ' || coalesce(
        (SELECT t.relid::text FROM pg_partition_tree(c.oid) AS t WHERE t.isleaf AND t.relid <> c.oid::regclass ORDER BY t.relid::text LIMIT 1), 'those to come')]
      WHEN c.relkind = 'v' THEN ARRAY['it is a view', 'add the tables that it reads']
      WHEN c.relkind = 'm' THEN ARRAY['it is a materialized view', 'add the tables that it reads']
      WHEN c.relkind = 'f' THEN ARRAY['it is a foreign table, and its changes are in the WAL of another server', 'watch it there']
      WHEN c.relkind <> 'r' THEN ARRAY['it is not a table', 'name a table']
      WHEN c.relpersistence = 't' THEN ARRAY['it is temporary, and its changes are not in the WAL', 'create it without TEMPORARY']
      WHEN c.relpersistence = 'u' THEN ARRAY['it is unlogged, and its changes are not in the WAL', format('run ALTER TABLE %s SET LOGGED', c.oid::regclass)]
      WHEN n.nspname IN ('pg_catalog', 'information_schema', 'pgdoc', 'pg_toast')
        THEN ARRAY['it belongs to the system, or to pgdoc itself', 'name a table of your own']
      WHEN strpos(n.nspname, '.') > 0 THEN ARRAY['its schema has a dot in its name, which would make names of events ambiguous', 'rename the schema']
      WHEN EXISTS (SELECT FROM pgdoc.registry r JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = 'pgdoc_before_update'
                   WHERE r.oid = c.oid AND r.until IS NULL AND r.kind = 'collection')
        THEN ARRAY['it is a collection', 'watch it by its name']
      WHEN p.indexrelid IS NULL THEN ARRAY['it has no primary key, which identifies a row', format('run ALTER TABLE %s ADD PRIMARY KEY (...)', c.oid::regclass)]
      WHEN NOT p.indimmediate
        THEN ARRAY['its primary key is deferrable, so two rows may have the same key for a moment', 'make it NOT DEFERRABLE']
      WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = 'v')
        THEN ARRAY['it has a virtual generated column, with which its updates would fail', 'declare the column STORED']
      WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (p.indkey) AND a.attgenerated <> '')
        THEN ARRAY['its primary key has a generated column, which is not in every stream', 'make another key the primary one']
      WHEN document IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = document
          AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
        THEN ARRAY[format('it has no column "%s" for the document', document), 'name one of type jsonb or json']
      WHEN document IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = document
          AND pgdoc.type_form(a.atttypid) = 'json')
        THEN ARRAY[format('its column "%s" has neither the type jsonb nor json', document), 'name one that has']
    END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
      LEFT JOIN (SELECT i.inhrelid, r.oid::regclass::text AS name
                 FROM pg_inherits i JOIN pgdoc.registry r ON r.oid = i.inhparent AND r.until IS NULL AND r.kind = 'collection'
      ) AS root ON root.inhrelid = c.oid
    WHERE c.oid = relation
  );
END $$;

CREATE FUNCTION pgdoc.has_before_images(relation oid) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bool_and(c.relreplident = 'f') FROM pg_class c
  WHERE c.oid = relation OR c.oid IN (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = relation)
$$;
COMMENT ON FUNCTION pgdoc.has_before_images IS 'whether a table and all its partitions are REPLICA IDENTITY FULL';

CREATE OR REPLACE FUNCTION pgdoc.watchable(in_schema text, names text[]) RETURNS TABLE (name text, relation regclass, is_full boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT found.name, c.oid::regclass, pgdoc.has_before_images(c.oid)
  FROM pgdoc.collections(in_schema) AS found(name) JOIN pg_class c ON c.relname = found.name
  WHERE c.relnamespace = to_regnamespace(quote_ident(in_schema)) AND pgdoc.is_wanted(in_schema, names, in_schema, found.name, false)
  UNION ALL
  SELECT pgdoc.label(r.kind, r.schema_name, r.name), c.oid::regclass, c.relreplident = 'f'
  FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid
  WHERE r.until IS NULL AND r.kind = 'table' AND pgdoc.is_wanted(in_schema, names, r.schema_name, r.name, true)
$$;

-- See 0011_upgrade.sql. PostgreSQL drops the triggers of partitions with those of their root.
CREATE OR REPLACE FUNCTION pgdoc.thaw() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  frozen record;
BEGIN
  FOR frozen IN
    SELECT t.tgrelid::regclass AS relation, t.tgname AS name FROM pg_trigger t
    WHERE t.tgfoid = 'pgdoc.refuse_frozen()'::regprocedure AND t.tgparentid = 0 ORDER BY t.tgrelid, t.tgname
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', frozen.name, frozen.relation);
  END LOOP;
  DELETE FROM pgdoc.upgrade_consumers;
  DELETE FROM pgdoc.upgrade;
END $$;

-- Without `max_size`, documents have no limit. `partitions`, if it is not NULL, is how many tables they are spread over.
CREATE FUNCTION pgdoc.create_table(schema_name text, name text, max_size bigint, partitions integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stem text := name;
  root oid;
BEGIN
  EXECUTE format(
    'CREATE TABLE %I.%I ('
    '  id text COLLATE "C" PRIMARY KEY CONSTRAINT pgdoc_id CHECK (octet_length(id) BETWEEN 1 AND 1024),'
    '  data jsonb NOT NULL CONSTRAINT pgdoc_data CHECK (jsonb_typeof(data) = ''object'' AND NOT data ? ''_id'')%s,'
    '  version bigint NOT NULL DEFAULT 1,'
    '  replaced_version bigint NOT NULL DEFAULT 1,'
    '  created_at timestamptz NOT NULL DEFAULT now(),'
    '  updated_at timestamptz NOT NULL DEFAULT now()) %s', schema_name, name,
    CASE WHEN max_size IS NOT NULL THEN format(' CONSTRAINT pgdoc_size CHECK (%s)', pgdoc.size_condition(max_size)) END,
    CASE WHEN partitions IS NOT NULL THEN 'PARTITION BY HASH (id)' END);
  root := to_regclass(format('%I.%I', schema_name, name));
  WHILE octet_length(stem) > 47 LOOP
    stem := left(stem, -1);
  END LOOP;
  FOR part IN 0 .. coalesce(partitions, 0) - 1 LOOP  -- no collection can have such a name, and one that is renamed leaves no name behind
    EXECUTE format('CREATE TABLE %I.%I PARTITION OF %I.%I FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
      schema_name, format('%s$%s$%s', stem, root, part), schema_name, name, partitions, part);
  END LOOP;
END $$;

CREATE FUNCTION pgdoc.create_collection(schema_name text, name text, max_size bigint, partitions integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
  found regclass;
  number bigint;
BEGIN
  IF partitions NOT BETWEEN 1 AND 256 THEN
    RAISE EXCEPTION 'a collection can have 1 to 256 partitions, got %', partitions USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR attempt IN 1 .. 5 LOOP
    BEGIN
      found := pgdoc.find_collection(schema_name, name);
      IF found IS NOT NULL THEN
        number := (SELECT count(*) FROM pg_inherits i WHERE i.inhparent = found);
        IF number <> partitions THEN
          RAISE EXCEPTION 'collection %.% exists with % partitions, not %', schema_name, name, number, partitions
            USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Their number can''t be changed: copy the documents into a new collection, or leave partitions out.';
        END IF;
        RETURN false;
      END IF;
      PERFORM pgdoc.check_may_register();
      IF to_regnamespace(quote_ident(schema_name)) IS NULL THEN
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', schema_name);
      END IF;
      PERFORM pgdoc.create_table(schema_name, name, max_size, partitions);
      EXIT;
    EXCEPTION WHEN duplicate_table OR duplicate_schema OR unique_violation OR serialization_failure THEN
      -- Another session creates the same one. Under READ COMMITTED the next attempt sees it.
      IF attempt = 5 OR SQLSTATE = '40001' AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE;
      END IF;
    END;
  END LOOP;
  RETURN pgdoc.register(to_regclass(format('%I.%I', schema_name, name)));
END $$;
COMMENT ON FUNCTION pgdoc.create_collection(text, text, bigint, integer) IS
  'creates a collection of so many partitions by hash of the id; returns false if it exists';

CREATE OR REPLACE FUNCTION pgdoc.create_collection(schema_name text, name text, max_size bigint DEFAULT 67108864) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgdoc.create_collection(schema_name, name, max_size, NULL::integer)
$$;

CREATE FUNCTION pgdoc.create_collection(
  schema_name text, name text, max_size bigint, json_schema text, violation jsonpath, partitions integer
) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pgdoc.create_collection(schema_name, name, max_size, partitions) THEN
    RETURN false;
  END IF;
  IF json_schema IS NOT NULL THEN
    PERFORM pgdoc.set_json_schema(to_regclass(format('%I.%I', schema_name, name)), json_schema, violation);
  END IF;
  RETURN true;
END $$;
COMMENT ON FUNCTION pgdoc.create_collection(text, text, bigint, text, jsonpath, integer) IS
  'creates a collection of so many partitions whose documents must conform to a JSON Schema; returns false if it exists';

-- See 0009_expiry.sql: what is on a partition counts as if it were on the collection, and a partitioned table has no rows of its own.
CREATE OR REPLACE FUNCTION pgdoc.expiry_obstacle(relation oid, trusting boolean DEFAULT false) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  code text;
  parts oid[] := relation || ARRAY(SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = relation);
BEGIN
  IF pg_is_in_recovery() THEN
    RETURN 'the server is a standby';
  ELSIF (has_table_privilege(relation, 'SELECT') AND has_table_privilege(relation, 'DELETE')
      AND has_any_column_privilege(relation, 'UPDATE')) IS NOT TRUE THEN
    RETURN format('role %I lacks SELECT, UPDATE or DELETE', current_user);
  ELSIF row_security_active(relation) THEN
    RETURN format('row-level security applies to role %I', current_user);
  ELSIF trusting OR NOT EXISTS (
      SELECT FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner
      WHERE c.oid = ANY (parts) AND NOT (o.rolname = session_user OR o.rolsuper
        OR o.oid = (SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = 'pgdoc'))) THEN
    RETURN NULL;
  END IF;
  SELECT found.name INTO code FROM (
    SELECT format('trigger %I', t.tgname)
    FROM pg_trigger t WHERE t.tgrelid = ANY (parts) AND t.tgenabled <> 'D' AND t.tgtype & 8 <> 0
    UNION ALL
    SELECT 'a rule' FROM pg_class c WHERE c.oid = ANY (parts) AND c.relhasrules
    UNION ALL  -- the planner evaluates these where they are constant
    SELECT pg_describe_object(d.refclassid, d.refobjid, 0)
    FROM pg_depend d
    WHERE (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = ANY (parts))
        OR d.classid = 'pg_constraint'::regclass AND d.objid IN (SELECT k.oid FROM pg_constraint k WHERE k.conrelid = ANY (parts))
        OR d.classid = 'pg_statistic_ext'::regclass
          AND d.objid IN (SELECT s.oid FROM pg_statistic_ext s WHERE s.stxrelid = ANY (parts)))
      AND (d.refclassid = 'pg_proc'::regclass AND d.refobjid NOT IN (
          SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'pgdoc'::regnamespace)
        OR d.refclassid IN ('pg_operator'::regclass, 'pg_type'::regclass))
  ) AS found(name) LIMIT 1;
  IF code IS NOT NULL THEN
    RETURN (
      SELECT format('%s would run with the rights of role %I, and belongs to role %I, as the collection does', code, session_user,
        pg_get_userbyid(c.relowner))
      FROM pg_class c WHERE c.oid = relation);
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.expire_batch(index oid, most bigint, after timestamptz DEFAULT '-infinity', renews boolean DEFAULT true,
  trusting boolean DEFAULT false, OUT claimed boolean, OUT met bigint, OUT deleted bigint, OUT latest timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  relation regclass := (SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = index);
  definition jsonb;
  condition text;
  moment text;
  until timestamptz;
  obstacle text;
  is_due boolean;
  source text;
BEGIN
  claimed := false;
  met := 0;
  deleted := 0;
  IF relation IS NULL OR NOT pgdoc.is_collection(relation) THEN
    RETURN;
  END IF;
  PERFORM pgdoc.lock_table(relation, 'ROW EXCLUSIVE');
  source := CASE (SELECT relkind FROM pg_class WHERE oid = relation) WHEN 'p' THEN '' ELSE 'ONLY ' END || relation;
  definition := pgdoc.expiry_definition(index);
  SELECT coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'), pg_get_indexdef(i.indexrelid, 1, false) INTO condition, moment
  FROM pg_index i WHERE i.indexrelid = index AND i.indisvalid;
  IF definition IS NULL OR moment IS NULL THEN
    RETURN;
  END IF;
  obstacle := pgdoc.expiry_obstacle(relation, trusting);
  IF obstacle IS NOT NULL THEN
    RAISE EXCEPTION 'expired documents of % stay: %', relation, obstacle USING ERRCODE = 'insufficient_privilege';
  END IF;
  until := clock_timestamp() - make_interval(secs => (definition -> 'expire_after')::float8);
  condition := format('%1$s >= $1 AND %1$s <= $2 AND (%2$s)', moment, condition);
  EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %s)', source, condition) INTO is_due USING after, until;
  IF NOT is_due THEN  -- so that nothing is written at rest
    claimed := true;
    RETURN;
  ELSIF NOT pgdoc.claim_expiry(index, renews) THEN
    RETURN;
  END IF;
  claimed := true;
  EXECUTE format(
    'WITH due AS MATERIALIZED ('
    '  SELECT id, %2$s AS moment FROM %1$s WHERE %3$s ORDER BY %2$s LIMIT $3 FOR UPDATE SKIP LOCKED'
    '), message AS MATERIALIZED (SELECT pg_logical_emit_message(true, ''pgdoc'', $4) FROM due LIMIT 1), gone AS ('
    '  DELETE FROM %1$s AS stored USING due, message WHERE stored.id = due.id RETURNING true'
    ') SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone), (SELECT max(moment) FROM due)', source, moment, condition)
  INTO met, deleted, latest
  USING after, until, most,
    jsonb_build_object('metadata', jsonb_build_object('pgdoc', 'expired', 'index', definition -> 'pgdoc index'))::text;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.expiry_backlog(index oid, OUT due bigint, OUT due_since timestamptz, OUT ignored bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  definition jsonb := pgdoc.expiry_definition(index);
  kept interval := make_interval(secs => (definition -> 'expire_after')::float8);
  relation regclass;
  condition text;
  moment text;
  source text;
BEGIN
  SELECT i.indrelid, coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'), pg_get_indexdef(i.indexrelid, 1, false)
  INTO relation, condition, moment FROM pg_index i WHERE i.indexrelid = index;
  source := CASE (SELECT relkind FROM pg_class WHERE oid = relation) WHEN 'p' THEN '' ELSE 'ONLY ' END || relation;
  EXECUTE format(
    'SELECT count(*), min(moment) FROM ('
    '  SELECT %2$s AS moment FROM %1$s WHERE %2$s <= $1 AND (%3$s) ORDER BY %2$s LIMIT 10001) AS late', source, moment, condition)
  INTO due, due_since USING clock_timestamp() - kept;
  due_since := due_since + kept;
  EXECUTE format('SELECT count(*) FROM (SELECT FROM %1$s WHERE %2$s = ''infinity'' AND (%3$s) LIMIT 10001) AS odd',
    source, moment, condition) INTO ignored;
END $$;

-- Partitioned tables that were collections before a downgrade are collections again.
DO $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT c.oid FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE k.conname = 'pgdoc_data' AND k.contype = 'c' AND c.relkind = 'p' AND NOT c.relispartition AND c.relreplident = 'f'
    ORDER BY c.oid
  LOOP
    BEGIN
      PERFORM pgdoc.register(relation);
    EXCEPTION
      WHEN lock_not_available OR deadlock_detected THEN
        RAISE;
      WHEN OTHERS THEN  -- no table of another role may stop the upgrade
        RAISE WARNING 'table % is not a collection: %', relation, SQLERRM;
    END;
  END LOOP;
END $$;
