-- What the registry's functions know of tables that are watched as they are.

-- What became of each present collection and table; nothing for one that is as the registry says. Without `among`, the name of a
-- column's type does not count: nobody is told of it late.
CREATE FUNCTION pgdoc.registry_changes(among oid[]) RETURNS TABLE (
  row_id tid, oid oid, schema_name text, name text, new_schema text, new_name text, change text
) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM (
    SELECT r.ctid, r.oid, r.schema_name, r.name, n.nspname::text, c.relname::text,
      CASE
        WHEN c.oid IS NULL THEN 'drop'
        WHEN r.kind = 'collection' AND t.oid IS NULL THEN 'unregister'
        WHEN r.kind = 'table' AND (r.print <> now.print OR n.nspname <> r.schema_name) AND pgdoc.table_fault(c.oid, r.document) IS NOT NULL
          THEN 'unregister'
        WHEN n.nspname <> r.schema_name THEN 'move'
        WHEN c.relname <> r.name THEN 'rename'
        WHEN r.print <> now.print OR r.kind = 'table' AND among IS NOT NULL AND pgdoc.table_columns(c.oid) <> r.columns THEN 'alter'
      END AS change
    FROM pgdoc.registry r LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind = 'r'
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'
      LEFT JOIN pgdoc.table_prints(ARRAY(
        SELECT w.oid FROM pgdoc.registry w WHERE w.until IS NULL AND w.kind = 'table' AND (among IS NULL OR w.oid = ANY (among)))
      ) AS now ON now.oid = r.oid
    WHERE r.until IS NULL AND (among IS NULL OR r.oid = ANY (among))
  ) AS found
  WHERE found.change IS NOT NULL
$$;

-- See 0007_registry.sql. A change of a table's shape closes its row and opens another, as a new name does.
CREATE OR REPLACE FUNCTION pgdoc.follow(just_changed oid[], all_others boolean) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was record;
  altered oid[] := '{}';
  new_schemas text[] := '{}';
  new_names text[] := '{}';
BEGIN
  IF NOT pgdoc.is_bound() THEN
    RETURN;
  END IF;
  FOR was IN
    SELECT r.ctid, r.oid, found.new_schema, found.new_name, found.change
    FROM pgdoc.registry_changes(CASE WHEN all_others THEN NULL ELSE just_changed END) AS found
      JOIN pgdoc.registry r ON r.ctid = found.row_id
    ORDER BY r.schema_name, r.name
    FOR UPDATE OF r SKIP LOCKED
  LOOP
    UPDATE pgdoc.registry
    SET until = pg_current_wal_insert_lsn(), closed_by = was.change, closed_xid = pg_current_xact_id(), exact = exact AND was.oid = ANY (just_changed)
    WHERE ctid = was.ctid;
    IF was.change IN ('rename', 'move', 'alter') THEN
      altered := altered || was.oid;
      new_schemas := new_schemas || was.new_schema;  -- a name read later may be the next one already
      new_names := new_names || was.new_name;
    END IF;
  END LOOP;
  IF cardinality(altered) > 0 THEN  -- after all were closed: two collections may have exchanged their names
    INSERT INTO pgdoc.registry (oid, schema_name, name, since, opened_by, from_name, exact, kind, key, document, columns, print, former_identity)
    SELECT old.oid, now.schema_name, now.name, old.until, old.closed_by,
      CASE old.closed_by WHEN 'rename' THEN old.name END, old.oid = ANY (just_changed), old.kind,
      CASE old.kind WHEN 'table' THEN pgdoc.table_key(old.oid) END, old.document,
      CASE old.kind WHEN 'table' THEN pgdoc.table_columns(old.oid) END,
      CASE old.kind WHEN 'table' THEN (SELECT t.print FROM pgdoc.table_prints(ARRAY[old.oid]) AS t) END, old.former_identity
    FROM pgdoc.registry old JOIN unnest(altered, new_schemas, new_names) AS now(oid, schema_name, name) ON now.oid = old.oid
    WHERE old.closed_xid = pg_current_xact_id()
      AND old.until = (SELECT max(r.until) FROM pgdoc.registry r WHERE r.oid = old.oid)
    ORDER BY old.schema_name, old.name;
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.is_followed() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (SELECT FROM pgdoc.registry_changes(NULL))
$$;

CREATE OR REPLACE FUNCTION pgdoc.form_fault(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN c.relkind <> 'r' OR c.relispartition OR EXISTS (
      SELECT FROM pg_inherits WHERE inhrelid = c.oid OR inhparent = c.oid) THEN 'it is not a plain table'
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

-- A watched table may have this trigger, too: any role may use the function.
CREATE OR REPLACE FUNCTION pgdoc.is_collection(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgdoc.is_bound() AND EXISTS (
    SELECT FROM pgdoc.registry r
      JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = 'pgdoc_before_update' AND t.tgfoid = 'pgdoc.before_update()'::regprocedure
    WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'collection')
$$;

CREATE OR REPLACE FUNCTION pgdoc.collections(schema_name text) RETURNS SETOF text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_bound();
  RETURN QUERY
    SELECT c.relname::text FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = 'pgdoc_before_update' AND t.tgfoid = 'pgdoc.before_update()'::regprocedure
    WHERE r.until IS NULL AND r.kind = 'collection' AND n.nspname = collections.schema_name
    ORDER BY c.relname::text COLLATE "C";
END $$;

CREATE OR REPLACE FUNCTION pgdoc.rebind() RETURNS text[] LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was record;
  entries pgdoc.registry[];
  relation regclass;
  fault text;
  found text[] := '{}';
BEGIN
  IF pgdoc.is_bound() THEN
    RETURN found;
  END IF;
  SELECT array_agg(r ORDER BY r.schema_name, r.name) INTO entries FROM pgdoc.registry r WHERE r.until IS NULL;
  DELETE FROM pgdoc.registry;
  DELETE FROM pgdoc.registry_commits;
  DELETE FROM pgdoc.identity;
  DELETE FROM pgdoc.published;
  INSERT INTO pgdoc.published
  SELECT oid, '', '', pg_current_wal_insert_lsn() FROM pg_publication WHERE pubname = 'pgdoc';
  IF (SELECT to_jsonb(p) ->> 'pubgencols' = 'n' FROM pg_publication p WHERE p.pubname = 'pgdoc') THEN  -- pg_upgrade to PostgreSQL 18
    EXECUTE 'ALTER PUBLICATION pgdoc SET (publish_generated_columns = stored)';
  END IF;
  FOR was IN SELECT * FROM unnest(entries) LOOP
    relation := to_regclass(format('%I.%I', was.schema_name, was.name));
    fault := CASE WHEN relation IS NULL THEN 'it does not exist' WHEN was.kind = 'collection' THEN pgdoc.form_fault(relation) END;
    IF fault IS NULL THEN
      BEGIN
        IF was.kind = 'collection' THEN
          PERFORM pgdoc.register(relation);
        ELSE  -- a dump keeps REPLICA IDENTITY FULL, but not what it was before
          PERFORM pgdoc.add_table(relation, was.document);
          UPDATE pgdoc.registry r SET former_identity = was.former_identity WHERE r.oid = relation AND r.until IS NULL;
        END IF;
        found := found || relation::text;
      EXCEPTION WHEN insufficient_privilege OR check_violation OR SQLSTATE 'PGD05' THEN  -- one table keeps no other from being registered
        fault := SQLERRM;
      END;
    END IF;
    IF fault IS NOT NULL THEN
      RAISE WARNING '% %.% is not registered again: %', was.kind, was.schema_name, was.name, fault;
    END IF;
  END LOOP;
  RETURN found;
END $$;

-- See 0007_registry.sql. It takes the table out of the publication, which would lose changes of a watched one.
CREATE OR REPLACE FUNCTION pgdoc.unregister(relation regclass) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was_collection boolean := pgdoc.is_collection(relation);
BEGIN
  PERFORM pgdoc.lock_followed(relation);
  IF pgdoc.is_table(relation) THEN
    RAISE EXCEPTION 'table % is watched as it is, and is no collection', relation
      USING ERRCODE = 'wrong_object_type', HINT = format('To end the watching of it, run SELECT pgdoc.remove_table(%L).', relation::text);
  END IF;
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_after_insert ON %s', relation);
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_before_update ON %s', relation);
  PERFORM pgdoc.withdraw(relation);
  PERFORM pgdoc.follow_own_ddl(relation);
  RETURN was_collection;
END $$;

CREATE FUNCTION pgdoc.label(kind text, schema_name text, name text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE kind WHEN 'table' THEN schema_name || '.' || name ELSE name END
$$;
COMMENT ON FUNCTION pgdoc.label IS 'the name that a collection or a table has in events';
