-- Collection events: creating, renaming or dropping a collection writes a message to the WAL, in order with its changes.
-- The message is {"collection": {"event": ..., "schema": ..., "name": ..., "renamed_to": ..., "left": [...]}}.
-- `left` lists the collections of the schema that remain after a drop or rename, so that a stream that resumes exactly there
-- knows whether any of its own remain. A list of more than 1,000 names is omitted.

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
COMMENT ON FUNCTION pgdoc.announce IS 'writes a collection event to the WAL';

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

-- `pgdoc.announcing` tells the event triggers to skip this DDL, which is announced below. The setting is local to the
-- transaction, so an error rolls it back.
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


-- Event triggers that announce what plain SQL does to collections. They run inside every role's DDL, including a
-- superuser's. So search_path is fixed and they call nothing that another role could replace; and their own errors become
-- warnings, so that they never make somebody's DDL fail.

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
  FOR gone IN  -- a dropped table was a collection if its trigger was dropped with it
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
  RAISE WARNING 'pgdoc could not announce the dropped collections to streams: %', SQLERRM;
END $$;

-- At ddl_command_end a renamed table already has its new name, so this stores the old names at ddl_command_start. Names
-- that are already stored come from an enclosing command, are older, and are kept.
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
  RAISE WARNING 'pgdoc cannot announce renamed collections to streams: %', SQLERRM;
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
    IF moved.new_schema <> in_schema THEN  -- a move to another schema is a drop here and a create there
      PERFORM pg_logical_emit_message(true, 'pgdoc', jsonb_build_object('collection', jsonb_build_object(
        'event', 'create', 'schema', moved.new_schema, 'name', moved.new_name))::text);
    END IF;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'pgdoc could not announce the renamed collections to streams: %', SQLERRM;
END $$;

-- Installs the event triggers. If another role installed the catalog, a superuser can call this at any later time. The
-- superuser then owns the functions: whoever owns a function that runs inside a superuser's DDL can act as that superuser.
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
  RAISE NOTICE 'role % cannot create event triggers: streams report drops and renames made through pgdoc, but not those made in '
    'SQL, until a superuser runs SELECT pgdoc.follow_ddl()', current_user;
  RETURN false;
END $$;
COMMENT ON FUNCTION pgdoc.follow_ddl IS 'makes streams report what DROP and ALTER do to collections; returns false if the role lacks the privilege';

-- Whether follow_ddl has installed its triggers and they are enabled.
CREATE FUNCTION pgdoc.follows_ddl() RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT count(*) = 3 FROM pg_event_trigger
  WHERE evtname IN ('pgdoc_drops', 'pgdoc_names', 'pgdoc_renames') AND evtenabled IN ('O', 'A')
$$;
