-- The life of collections: that one was made, renamed or dropped stands in the WAL, in order with its changes.
-- The message is {"collection": {"event": ..., "schema": ..., "name": ..., "renamed_to": ..., "left": [...]}}.
-- `left` are the collections of the schema after a drop or rename, so that a stream which resumes just there knows
-- whether any of its own is left; in schemas of more than 1,000 it is not told.

CREATE FUNCTION pgdoc.announce(event text, schema_name text, name text, renamed_to text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  left_over text[];
BEGIN
  IF event <> 'create' THEN
    SELECT coalesce(array_agg(c.relname::text), '{}') INTO left_over
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgname = 'pgdoc_before_update' AND c.relnamespace = to_regnamespace(quote_ident(schema_name));
  END IF;
  PERFORM pg_logical_emit_message(true, 'pgdoc', jsonb_build_object('collection', jsonb_strip_nulls(jsonb_build_object(
    'event', event, 'schema', schema_name, 'name', name, 'renamed_to', renamed_to,
    'left', CASE WHEN cardinality(left_over) <= 1000 THEN to_jsonb(left_over) END)))::text);
END $$;
COMMENT ON FUNCTION pgdoc.announce IS 'says in the WAL what became of a collection';

CREATE OR REPLACE FUNCTION pgdoc.create_collection(schema_name text, name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  relation regclass;
  made boolean;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(format('pgdoc %I.%I', schema_name, name), 0));
  relation := pgdoc.find_collection(schema_name, name);
  made := relation IS NULL;
  IF made THEN
    PERFORM pgdoc.check_publication_owner();
    IF to_regnamespace(quote_ident(schema_name)) IS NULL THEN
      PERFORM pg_advisory_xact_lock(hashtextextended(format('pgdoc %I', schema_name), 0));
      EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', schema_name);
    END IF;
    EXECUTE format(
      'CREATE TABLE %I.%I ('
      '  id text COLLATE "C" PRIMARY KEY CONSTRAINT pgdoc_id CHECK (octet_length(id) BETWEEN 1 AND 1024),'
      '  data jsonb NOT NULL CONSTRAINT pgdoc_data CHECK (jsonb_typeof(data) = ''object'' AND NOT data ? ''_id''),'
      '  version bigint NOT NULL DEFAULT 1,'
      '  replaced_version bigint NOT NULL DEFAULT 1,'
      '  created_at timestamptz NOT NULL DEFAULT now(),'
      '  updated_at timestamptz NOT NULL DEFAULT now())', schema_name, name);
    relation := to_regclass(format('%I.%I', schema_name, name));
  END IF;
  PERFORM pgdoc.equip_collection(relation);
  IF made THEN
    PERFORM pgdoc.announce('create', schema_name, name);
  END IF;
  RETURN made;
END $$;

-- While `pgdoc.announcing` is set, the event triggers keep silent. An error takes it back with all else.
CREATE OR REPLACE FUNCTION pgdoc.drop_collection(schema_name text, name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  relation regclass := pgdoc.find_collection(schema_name, name);
BEGIN
  IF relation IS NOT NULL THEN
    PERFORM set_config('pgdoc.announcing', 'yes', true);
    EXECUTE format('DROP TABLE %s', relation);
    PERFORM set_config('pgdoc.announcing', '', true);
    PERFORM pgdoc.announce('drop', schema_name, name);
  END IF;
  RETURN relation IS NOT NULL;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.rename_collection(schema_name text, old_name text, new_name text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  relation regclass := pgdoc.find_collection(schema_name, old_name);
BEGIN
  IF relation IS NOT NULL THEN
    PERFORM set_config('pgdoc.announcing', 'yes', true);
    EXECUTE format('ALTER TABLE %s RENAME TO %I', relation, new_name);
    PERFORM set_config('pgdoc.announcing', '', true);
    PERFORM pgdoc.announce('rename', schema_name, old_name, new_name);
  END IF;
  RETURN relation IS NOT NULL;
END $$;


-- What SQL does to collections. These run inside any DDL of anybody, a superuser's too: so they call nothing that
-- another role could replace, and an error of theirs is a warning.

CREATE FUNCTION pgdoc.announce_drops() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
  in_schema text;
  left_over text[];
BEGIN
  IF current_setting('pgdoc.announcing', true) = 'yes' THEN
    RETURN;
  END IF;
  FOR gone IN  -- a table was a collection if its trigger went with it
    SELECT o.schema_name, o.object_name, array_agg(o.object_name) OVER (PARTITION BY o.schema_name) AS with_it
    FROM pg_event_trigger_dropped_objects() o JOIN pg_event_trigger_dropped_objects() t
      ON t.object_type = 'trigger' AND t.address_names = o.address_names || '{pgdoc_before_update}'
    WHERE o.object_type = 'table' AND NOT o.is_temporary
    ORDER BY o.schema_name, o.object_name
  LOOP
    IF in_schema IS DISTINCT FROM gone.schema_name THEN
      in_schema := gone.schema_name;
      SELECT gone.with_it || coalesce(array_agg(c.relname::text), '{}') INTO left_over
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE t.tgname = 'pgdoc_before_update' AND n.nspname = in_schema;
    END IF;
    left_over := array_remove(left_over, gone.object_name);
    PERFORM pg_logical_emit_message(true, 'pgdoc', jsonb_build_object('collection', jsonb_strip_nulls(
      jsonb_build_object('event', 'drop', 'schema', in_schema, 'name', gone.object_name,
        'left', CASE WHEN cardinality(left_over) <= 1000 THEN to_jsonb(left_over) END)))::text);
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'streams are not told what was dropped: %', SQLERRM;
END $$;

-- What DDL renames has its new name when it ends, so the names are remembered when it begins; what is remembered
-- already is older, of a command around this one, and stays.
CREATE FUNCTION pgdoc.remember_names() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('pgdoc.announcing', true) = 'yes' OR current_setting('pgdoc.names', true) <> '' THEN
    RETURN;
  END IF;
  PERFORM set_config('pgdoc.names', coalesce(jsonb_object_agg(c.oid, jsonb_build_array(n.nspname, c.relname))::text, ''), true)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE t.tgname = 'pgdoc_before_update' AND c.relpersistence = 'p';
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'streams will not be told what is renamed: %', SQLERRM;
END $$;

CREATE FUNCTION pgdoc.announce_renames() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names jsonb;
  moved record;
  in_schema text;
  left_over text[];
BEGIN
  IF current_setting('pgdoc.announcing', true) = 'yes' OR coalesce(current_setting('pgdoc.names', true), '') = '' THEN
    RETURN;
  END IF;
  names := current_setting('pgdoc.names')::jsonb;
  PERFORM set_config('pgdoc.names', '', true);
  FOR moved IN
    SELECT before.value ->> 0 AS schema_name, before.value ->> 1 AS name, n.nspname::text AS new_schema,
      c.relname::text AS new_name, array_agg(before.value ->> 1) OVER (PARTITION BY before.value ->> 0) AS with_it
    FROM jsonb_each(names) AS before JOIN pg_class c ON c.oid = before.key::oid
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE before.value <> jsonb_build_array(n.nspname, c.relname)
    ORDER BY 1, 2
  LOOP
    IF in_schema IS DISTINCT FROM moved.schema_name THEN
      in_schema := moved.schema_name;
      SELECT moved.with_it || coalesce(array_agg(c.relname::text), '{}') INTO left_over
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE t.tgname = 'pgdoc_before_update' AND n.nspname = in_schema;
    END IF;
    left_over := array_remove(left_over, moved.name);
    PERFORM pg_logical_emit_message(true, 'pgdoc', jsonb_build_object('collection', jsonb_strip_nulls(
      jsonb_build_object('event', CASE moved.new_schema WHEN in_schema THEN 'rename' ELSE 'drop' END,
        'schema', in_schema, 'name', moved.name,
        'renamed_to', CASE moved.new_schema WHEN in_schema THEN moved.new_name END,
        'left', CASE WHEN cardinality(left_over) <= 1000 THEN to_jsonb(left_over) END)))::text);
    IF moved.new_schema <> in_schema THEN
      PERFORM pg_logical_emit_message(true, 'pgdoc', jsonb_build_object('collection', jsonb_build_object(
        'event', 'create', 'schema', moved.new_schema, 'name', moved.new_name))::text);
    END IF;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'streams are not told what was renamed: %', SQLERRM;
END $$;

-- A superuser may call it at any time after another role installed the catalog. The functions then become the
-- superuser's: who owns a function that runs inside everybody's DDL could do everything.
CREATE FUNCTION pgdoc.follow_ddl() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgdoc_drops') THEN
    CREATE EVENT TRIGGER pgdoc_drops ON sql_drop EXECUTE FUNCTION pgdoc.announce_drops();
    EXECUTE format('ALTER FUNCTION pgdoc.announce_drops() OWNER TO %I', current_user);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgdoc_names') THEN
    CREATE EVENT TRIGGER pgdoc_names ON ddl_command_start WHEN TAG IN ('ALTER TABLE', 'ALTER INDEX', 'ALTER SCHEMA')
      EXECUTE FUNCTION pgdoc.remember_names();
    EXECUTE format('ALTER FUNCTION pgdoc.remember_names() OWNER TO %I', current_user);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgdoc_renames') THEN
    CREATE EVENT TRIGGER pgdoc_renames ON ddl_command_end WHEN TAG IN ('ALTER TABLE', 'ALTER INDEX', 'ALTER SCHEMA')
      EXECUTE FUNCTION pgdoc.announce_renames();
    EXECUTE format('ALTER FUNCTION pgdoc.announce_renames() OWNER TO %I', current_user);
  END IF;
  RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE NOTICE 'role % may not create event triggers: streams are told of drops and renames by the library, not of those '
    'in SQL, until a superuser runs SELECT pgdoc.follow_ddl()', current_user;
  RETURN false;
END $$;
COMMENT ON FUNCTION pgdoc.follow_ddl IS 'lets streams see what DROP and ALTER do to collections; false where the role may not';

-- Whether it does; a disabled trigger does nothing.
CREATE FUNCTION pgdoc.follows_ddl() RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT count(*) = 3 FROM pg_event_trigger
  WHERE evtname IN ('pgdoc_drops', 'pgdoc_names', 'pgdoc_renames') AND evtenabled IN ('O', 'A')
$$;
