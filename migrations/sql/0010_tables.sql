-- Tables that are no collections and are watched as they are. The registry has them beside the collections: a span for each
-- name and each shape that such a table has or had.

ALTER TABLE pgdoc.registry
  ADD COLUMN kind     text NOT NULL DEFAULT 'collection' CHECK (kind IN ('collection', 'table')),
  ADD COLUMN key      text[],
  ADD COLUMN document text,
  ADD COLUMN columns  jsonb,
  ADD COLUMN was_default boolean NOT NULL DEFAULT false,
  DROP CONSTRAINT registry_opened_by_check,
  DROP CONSTRAINT registry_closed_by_check,
  ADD CONSTRAINT registry_opened_by_check CHECK (opened_by IN ('create', 'rename', 'move', 'alter')),
  ADD CONSTRAINT registry_closed_by_check CHECK (closed_by IN ('drop', 'rename', 'move', 'alter', 'unregister')),
  ADD CONSTRAINT registry_shape_check CHECK (kind = 'collection' OR key IS NOT NULL AND columns IS NOT NULL);
COMMENT ON COLUMN pgdoc.registry.kind IS '`table` for a table that is watched as it is';
COMMENT ON COLUMN pgdoc.registry.key IS 'the columns of a table''s primary key, in the order of its index';
COMMENT ON COLUMN pgdoc.registry.document IS 'the column of a table that its events have as their document; NULL for the whole row';
COMMENT ON COLUMN pgdoc.registry.columns IS 'the columns of a table that its events have, in order: name, type and form';
COMMENT ON COLUMN pgdoc.registry.was_default IS 'whether add_table changed the replica identity from DEFAULT';

-- How the JSON of a value is made from its output text: `text`, `number`, `bool`, `json`, `timestamp`, `timestamptz`,
-- `int2vector` or `oidvector`; for an array, that of its elements and the delimiter in brackets. A domain has the form of its
-- base type. A composite type has `text`, as has an array of composites: their structure is not in the WAL.
CREATE FUNCTION pgdoc.type_form(type oid) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off AS $$
  WITH RECURSIVE base AS (
    SELECT t.* FROM pg_type t WHERE t.oid = type_form.type
    UNION ALL
    SELECT t.* FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
  ), element AS (
    SELECT e.*, b.typdelim AS delimiter
    FROM base b JOIN pg_type e ON e.oid = b.typelem
    WHERE b.typtype <> 'd' AND b.typlen = -1 AND b.typsubscript = 'array_subscript_handler'::regproc
      AND b.oid NOT IN ('int2vector'::regtype, 'oidvector'::regtype)
    UNION ALL
    SELECT t.*, e.delimiter FROM element e JOIN pg_type t ON t.oid = e.typbasetype WHERE e.typtype = 'd'
  ), found AS (
    SELECT oid, typtype, format('[%s]', delimiter) AS brackets FROM element WHERE typtype <> 'd'
    UNION ALL
    SELECT oid, typtype, '' FROM base WHERE typtype <> 'd' AND NOT EXISTS (SELECT FROM element)
  )
  SELECT coalesce((
    SELECT CASE
      WHEN typtype = 'c' OR brackets <> '' AND EXISTS (  -- a domain over an array
        SELECT FROM pg_type e WHERE e.oid = found.oid AND e.typlen = -1 AND e.typsubscript = 'array_subscript_handler'::regproc
          AND e.oid NOT IN ('int2vector'::regtype, 'oidvector'::regtype)) THEN 'text'
      ELSE CASE
        WHEN oid = 'bool'::regtype THEN 'bool'
        WHEN oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float4'::regtype, 'float8'::regtype, 'numeric'::regtype)
          THEN 'number'
        WHEN oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
        WHEN oid = 'timestamp'::regtype THEN 'timestamp'
        WHEN oid = 'timestamptz'::regtype THEN 'timestamptz'
        WHEN oid IN ('int2vector'::regtype, 'oidvector'::regtype) THEN oid::regtype::text
        ELSE 'text'
      END || brackets
    END
    FROM found), 'text')
$$;
COMMENT ON FUNCTION pgdoc.type_form IS 'how the JSON of a value of this type is made from its text';

-- Generated columns are left out: neither every server nor every plugin sends them. The names of types must be the same for
-- every role, or its session would find that the table had changed.
CREATE FUNCTION pgdoc.table_columns(relation regclass) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
    'form', pgdoc.type_form(a.atttypid)) ORDER BY a.attnum), '[]')
  FROM pg_attribute a
  WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
$$;

CREATE FUNCTION pgdoc.table_key(relation regclass) RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_agg(a.attname::text ORDER BY k.place)
  FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place), pg_attribute a
  WHERE i.indrelid = relation AND i.indisprimary AND k.place <= i.indnkeyatts AND a.attrelid = relation AND a.attnum = k.attnum
$$;

-- Why a table can't be watched as it is; NULL if it can. `document` is the column that its events shall have as their document.
CREATE FUNCTION pgdoc.table_fault(relation regclass, document text DEFAULT NULL) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN c.relkind = 'p' THEN 'it is a partitioned table: add each of its partitions, such as ' || coalesce(
      (SELECT i.inhrelid::regclass::text FROM pg_inherits i WHERE i.inhparent = c.oid ORDER BY 1 LIMIT 1), 'those to come')
    WHEN c.relkind = 'v' THEN 'it is a view: add the tables that it reads'
    WHEN c.relkind = 'm' THEN 'it is a materialized view: add the tables that it reads'
    WHEN c.relkind = 'f' THEN 'it is a foreign table, and its changes are in the WAL of another server: watch it there'
    WHEN c.relkind <> 'r' THEN 'it is not a table: name a table'
    WHEN c.relpersistence = 't' THEN 'it is temporary, and its changes are not in the WAL: create it without TEMPORARY'
    WHEN c.relpersistence = 'u' THEN 'it is unlogged, and its changes are not in the WAL: run ALTER TABLE ' || c.oid::regclass || ' SET LOGGED'
    WHEN n.nspname IN ('pg_catalog', 'information_schema', 'pgdoc', 'pg_toast') THEN 'it belongs to the system, or to pgdoc itself: name a table of your own'
    WHEN strpos(n.nspname, '.') > 0 THEN 'its schema has a dot in its name, which would make names of events ambiguous: rename the schema'
    WHEN pgdoc.is_collection(c.oid) THEN 'it is a collection: watch it by its name'
    WHEN p.indexrelid IS NULL THEN 'it has no primary key, which identifies a row: run ALTER TABLE ' || c.oid::regclass || ' ADD PRIMARY KEY (...)'
    WHEN NOT p.indimmediate THEN 'its primary key is deferrable, so two rows may have the same key for a moment: make it NOT DEFERRABLE'
    WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = 'v')
      THEN 'it has a virtual generated column, with which its updates would fail: declare the column STORED'
    WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (p.indkey) AND a.attgenerated <> '')
      THEN 'its primary key has a generated column, which is not in every stream: make another key the primary one'
    WHEN document IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = document
        AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
      THEN format('it has no column "%s": name one of type jsonb or json', document)
    WHEN document IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = document
        AND pgdoc.type_form(a.atttypid) = 'json')
      THEN format('its column "%s" has neither the type jsonb nor json: name one that has', document)
  END
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
  WHERE c.oid = relation
$$;
COMMENT ON FUNCTION pgdoc.table_fault IS 'why a table can not be watched as it is; NULL if it can';

CREATE FUNCTION pgdoc.is_table(relation regclass) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgdoc.is_bound() AND EXISTS (SELECT FROM pgdoc.registry r WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'table')
$$;
COMMENT ON FUNCTION pgdoc.is_table IS 'whether a table is watched as it is';

CREATE FUNCTION pgdoc.tables() RETURNS TABLE (schema_name text, name text, document text, key text[], columns jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_bound();
  RETURN QUERY
    SELECT n.nspname::text, c.relname::text, r.document, r.key, r.columns
    FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.until IS NULL AND r.kind = 'table'
    ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C";
END $$;

-- A fault is a reason, and after a colon what to do about it, if anything helps.
CREATE FUNCTION pgdoc.refuse_watching(relation regclass, fault text) RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'table % can''t be watched: %', relation, split_part(fault, ': ', 1)
    USING ERRCODE = 'PGD05', HINT = substr(fault, length(split_part(fault, ': ', 1)) + 3);
END $$;

-- Whether the role that logged in has the rights of the table's owner. Inside a SECURITY DEFINER function, `current_user` is
-- another role.
CREATE FUNCTION pgdoc.check_owner_of(relation regclass) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = relation);
BEGIN
  IF NOT pg_has_role(session_user, owner, 'USAGE') THEN
    RAISE EXCEPTION 'role % is not the owner of table %', session_user, relation
      USING ERRCODE = 'insufficient_privilege', HINT = format('Run it as %I.', owner);
  END IF;
END $$;

-- The half of `add_table` that has the rights of the catalog's owner. It believes nothing that it does not see: it is called by
-- the table's owner, and the table has before images. With NULL it only takes the lock, as `enter_collection` does.
CREATE FUNCTION pgdoc.enter_table(relation regclass, document text, was_default boolean) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fault text := pgdoc.table_fault(relation, document);
BEGIN
  PERFORM pgdoc.enter_collection(NULL);
  IF relation IS NULL THEN
    RETURN;
  ELSIF fault IS NOT NULL THEN
    PERFORM pgdoc.refuse_watching(relation, fault);
  END IF;
  PERFORM pgdoc.check_owner_of(relation);
  PERFORM pgdoc.check_bound();
  IF (SELECT relreplident <> 'f' FROM pg_class WHERE oid = relation) THEN
    PERFORM pgdoc.refuse_watching(relation, format('it lacks REPLICA IDENTITY FULL: run SELECT pgdoc.add_table(%L)', relation::text));
  ELSIF pgdoc.is_table(relation) THEN
    RETURN;
  END IF;
  PERFORM pgdoc.lock_table(relation, 'SHARE ROW EXCLUSIVE');  -- each transaction that wrote to it has ended
  PERFORM pgdoc.claim_registry();
  PERFORM pgdoc.follow('{}', true);
  PERFORM pgdoc.prune_registry();
  PERFORM pgdoc.publish_once(relation);
  INSERT INTO pgdoc.registry (oid, schema_name, name, since, opened_by, kind, key, document, columns, was_default)
  SELECT c.oid, n.nspname, c.relname, pg_current_wal_insert_lsn(), 'create', 'table', pgdoc.table_key(c.oid), document,
    pgdoc.table_columns(c.oid), was_default
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
END $$;

-- An empty registry becomes this database's own.
CREATE FUNCTION pgdoc.claim_registry() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO pgdoc.identity (system_id, database_oid, registry_oid, messages_until)
  SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), 'pgdoc.registry'::regclass, '0/0'
  FROM pg_control_system()
  WHERE NOT EXISTS (SELECT FROM pgdoc.registry)
  ON CONFLICT (only_row) DO UPDATE
  SET system_id = excluded.system_id, database_oid = excluded.database_oid, registry_oid = excluded.registry_oid,
    messages_until = '0/0'
  WHERE (identity.system_id, identity.database_oid, identity.registry_oid)
    <> (excluded.system_id, excluded.database_oid, excluded.registry_oid)
$$;

-- Publishes a table unless that is done; what the publication held before counts from its first change.
CREATE FUNCTION pgdoc.publish_once(relation regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                   JOIN pgdoc.published known ON known.member = r.oid
                 WHERE p.pubname = 'pgdoc' AND r.prrelid = relation) THEN
    PERFORM pgdoc.publish_collection(relation, is_new => true);
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE EXCEPTION 'table % can''t be published: %', relation, SQLERRM
    USING ERRCODE = 'insufficient_privilege',
      HINT = (SELECT format('Run: GRANT %I TO %I', pg_get_userbyid(c.relowner), current_user) FROM pg_class c WHERE c.oid = relation);
END $$;

-- Has the rights of its caller, who must own the table.
CREATE FUNCTION pgdoc.add_table(relation regclass, document text DEFAULT NULL) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
  fault text := pgdoc.table_fault(relation, document);
  is_known boolean;
  known_document text;
  identity "char";
BEGIN
  IF fault IS NOT NULL THEN
    PERFORM pgdoc.refuse_watching(relation, fault);
  END IF;
  PERFORM pgdoc.check_bound();
  SELECT true, r.document INTO is_known, known_document FROM pgdoc.registry r WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'table';
  SELECT relreplident INTO identity FROM pg_class WHERE oid = relation;
  IF is_known AND known_document IS DISTINCT FROM document THEN
    PERFORM pgdoc.refuse_watching(relation, format('it is watched with %s: remove it first',
      CASE WHEN known_document IS NULL THEN 'its whole rows' ELSE format('the document "%s"', known_document) END));
  ELSIF is_known AND identity = 'f' THEN
    RETURN false;
  END IF;
  IF NOT has_function_privilege('pgdoc.enter_table(regclass, text, boolean)', 'EXECUTE') THEN
    RAISE EXCEPTION 'role % may not register tables', current_user
      USING ERRCODE = 'insufficient_privilege', HINT = format(
        'As the catalog''s owner, run: GRANT EXECUTE ON FUNCTION pgdoc.enter_table(regclass, text, boolean) TO %I', current_user);
  END IF;
  PERFORM pgdoc.enter_table(NULL, NULL, NULL);
  IF identity = 'f' THEN
    PERFORM pgdoc.lock_table(relation, 'SHARE ROW EXCLUSIVE');
  ELSE
    PERFORM pgdoc.lock_table(relation, 'ACCESS EXCLUSIVE');
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL', relation);
  END IF;
  IF (SELECT pg_has_role(pubowner, 'USAGE') FROM pg_publication WHERE pubname = 'pgdoc') THEN
    PERFORM pgdoc.publish_collection(relation, is_new => true);  -- as a role that owns the table and the publication
  END IF;
  PERFORM pgdoc.enter_table(relation, document, identity = 'd');
  RETURN true;
END $$;
COMMENT ON FUNCTION pgdoc.add_table IS 'makes streams able to watch a table as it is; returns false if they were';

-- The half of `remove_table` that has the rights of the catalog's owner.
CREATE FUNCTION pgdoc.leave_table(relation regclass) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_owner_of(relation);
  UPDATE pgdoc.registry
  SET until = pg_current_wal_insert_lsn(), closed_by = 'unregister', closed_xid = pg_current_xact_id()
  WHERE oid = relation AND until IS NULL AND kind = 'table';
END $$;

-- The replica identity becomes what it was, if that was DEFAULT: an update then writes less WAL again.
CREATE FUNCTION pgdoc.remove_table(relation regclass) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
  was_table boolean := pgdoc.is_table(relation);
  was_default boolean;
BEGIN
  IF NOT was_table THEN
    RETURN false;
  END IF;
  PERFORM pgdoc.lock_followed(relation);
  SELECT r.was_default INTO was_default FROM pgdoc.registry r WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'table';
  PERFORM pgdoc.leave_table(relation);
  IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname = 'pgdoc' AND r.prrelid = relation AND pg_has_role(p.pubowner, 'USAGE')) THEN
    EXECUTE format('ALTER PUBLICATION pgdoc DROP TABLE ONLY %s', relation);
  END IF;
  IF was_default THEN
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT', relation);
  END IF;
  RETURN true;
END $$;
COMMENT ON FUNCTION pgdoc.remove_table IS 'ends the watching of a table, and keeps the table; returns false if it was not watched';


-- What became of each present collection and table; nothing for one that is as the registry says.
CREATE FUNCTION pgdoc.registry_changes(among oid[]) RETURNS TABLE (
  row_id tid, oid oid, schema_name text, name text, new_schema text, new_name text, change text
) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM (
    SELECT r.ctid, r.oid, r.schema_name, r.name, n.nspname::text, c.relname::text,
      CASE
        WHEN c.oid IS NULL THEN 'drop'
        WHEN r.kind = 'collection' AND t.oid IS NULL THEN 'unregister'
        WHEN r.kind = 'table' AND pgdoc.table_key(c.oid) IS NULL THEN 'unregister'
        WHEN n.nspname <> r.schema_name THEN 'move'
        WHEN c.relname <> r.name THEN 'rename'
        WHEN r.kind = 'table' AND (pgdoc.table_columns(c.oid) <> r.columns OR pgdoc.table_key(c.oid) <> r.key) THEN 'alter'
      END AS change
    FROM pgdoc.registry r LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind = 'r'
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'
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
    INSERT INTO pgdoc.registry (oid, schema_name, name, since, opened_by, from_name, exact, kind, key, document, columns, was_default)
    SELECT old.oid, now.schema_name, now.name, old.until, old.closed_by,
      CASE old.closed_by WHEN 'rename' THEN old.name END, old.oid = ANY (just_changed), old.kind,
      CASE old.kind WHEN 'table' THEN pgdoc.table_key(old.oid) END, old.document,
      CASE old.kind WHEN 'table' THEN pgdoc.table_columns(old.oid) END, old.was_default
    FROM pgdoc.registry old JOIN unnest(altered, new_schemas, new_names) AS now(oid, schema_name, name) ON now.oid = old.oid
    WHERE old.closed_xid = pg_current_xact_id()
      AND old.until = (SELECT max(r.until) FROM pgdoc.registry r WHERE r.oid = old.oid)
    ORDER BY old.schema_name, old.name;
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.is_followed() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (SELECT FROM pgdoc.registry_changes(NULL))
$$;

REVOKE ALL ON FUNCTION pgdoc.enter_table(regclass, text, boolean), pgdoc.claim_registry(),
  pgdoc.publish_once(regclass) FROM PUBLIC;
