-- CASCADE drops the event triggers with their functions.
DROP FUNCTION IF EXISTS pgdoc.follow_drop(), pgdoc.follow_alter(), pgdoc.lock_renamed() CASCADE;
DROP FUNCTION pgdoc.existed(text, text[], pg_lsn, pg_lsn), pgdoc.exact_since(text, text[]), pgdoc.rebind(), pgdoc.unregister(regclass), pgdoc.register(regclass),
  pgdoc.check_may_register(), pgdoc.enter_collection(regclass), pgdoc.prune_registry(), pgdoc.follow_own_ddl(oid),
  pgdoc.lock_followed(regclass), pgdoc.follow_tables(), pgdoc.is_followed(), pgdoc.follow(oid[], boolean),
  pgdoc.refuse_table(text), pgdoc.collection_oid(text, text),
  pgdoc.is_equipped(regclass), pgdoc.publication_fault(text, text[]), pgdoc.lock_table(regclass, text), pgdoc.check_bound();
DELETE FROM pgdoc.published WHERE name = 'registry' AND schema_name = 'pgdoc' OR name = 'pgdoc.registry';
ALTER PUBLICATION pgdoc DROP TABLE pgdoc.registry;

CREATE OR REPLACE FUNCTION pgdoc.is_collection(relation regclass) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT count(*) = 6
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE c.oid = relation AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT a.attisdropped
    AND (a.attname, a.atttypid) IN (
      ('id', 'text'::regtype), ('data', 'jsonb'::regtype), ('version', 'bigint'::regtype),
      ('replaced_version', 'bigint'::regtype), ('created_at', 'timestamptz'::regtype),
      ('updated_at', 'timestamptz'::regtype))
$$;

CREATE OR REPLACE FUNCTION pgdoc.collections(schema_name text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT c.relname::text
  FROM pg_class c
  WHERE c.relnamespace = to_regnamespace(quote_ident(schema_name)) AND pgdoc.is_collection(c.oid)
  ORDER BY c.relname::text COLLATE "C"
$$;

CREATE OR REPLACE FUNCTION pgdoc.find_collection(schema_name text, name text) RETURNS regclass LANGUAGE plpgsql STABLE AS $$
DECLARE
  relation regclass := to_regclass(format('%I.%I', schema_name, name));
BEGIN
  IF relation IS NULL OR pgdoc.is_collection(relation) THEN
    RETURN relation;
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN  -- to_regclass sees newer tables than the snapshot
    RAISE EXCEPTION 'the table %.% is newer than this transaction''s snapshot', schema_name, name
      USING ERRCODE = 'serialization_failure', HINT = 'Run the transaction again.';
  ELSE
    RAISE EXCEPTION 'table "%.%" is not a collection', schema_name, name
      USING ERRCODE = 'wrong_object_type', HINT = 'A collection has the columns id text, data jsonb, version bigint, '
        'replaced_version bigint, created_at timestamptz, updated_at timestamptz: use another collection name.';
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.check_publication_owner() RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
  publication_owner name;
BEGIN
  SELECT pg_get_userbyid(pubowner) INTO publication_owner FROM pg_publication WHERE pubname = 'pgdoc';
  IF publication_owner IS NULL THEN
    RAISE EXCEPTION 'the publication "pgdoc" does not exist'
      USING ERRCODE = 'undefined_object', HINT = 'Run: CREATE PUBLICATION pgdoc';
  ELSIF NOT pg_has_role(publication_owner, 'USAGE') THEN
    RAISE EXCEPTION 'role % cannot create collections: role % owns the publication "pgdoc"', current_user, publication_owner
      USING ERRCODE = 'insufficient_privilege',
        HINT = format('Create the collection as %I.', publication_owner);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.unpublished(schema_name text) RETURNS SETOF regclass LANGUAGE sql STABLE AS $$
  WITH unknown AS MATERIALIZED (  -- narrows the tables before the costly is_collection; NOT IN is hashed whatever the statistics say
    SELECT c.oid, c.relname
    FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(quote_ident(schema_name)) AND c.relkind = 'r'
      AND c.oid NOT IN (
        SELECT r.prrelid FROM pg_publication_rel r
        WHERE r.prpubid = (SELECT oid FROM pg_publication WHERE pubname = 'pgdoc')
          AND r.oid IN (SELECT member FROM pgdoc.published))
      AND (c.relreplident = 'f' OR c.relreplident = 'd' AND EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))
  )
  SELECT oid::regclass FROM unknown WHERE pgdoc.is_collection(oid) ORDER BY relname
$$;

CREATE OR REPLACE FUNCTION pgdoc.publication_fault(schema_name text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN p.oid IS NULL THEN 'does not exist: run CREATE PUBLICATION pgdoc'
    WHEN NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate)
      THEN 'does not publish every kind of change: run ALTER PUBLICATION pgdoc SET (publish = ''insert, update, delete, truncate'')'
    WHEN EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL))
      THEN 'leaves out rows or columns: drop those tables from it and run SELECT pgdoc.publish(''' || schema_name || ''')'
    WHEN NOT EXISTS (SELECT FROM pgdoc.published WHERE member = p.oid)
      THEN 'was re-created: run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
    ELSE (SELECT 'lacks ' || string_agg(relation::text, ', ') || ': run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
          FROM pgdoc.unpublished(schema_name) AS relation)
  END
  FROM (SELECT) AS one LEFT JOIN pg_publication p ON p.pubname = 'pgdoc'
$$;

CREATE OR REPLACE FUNCTION pgdoc.publish_collection(relation regclass, is_new boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pgdoc.check_publication_owner();
  EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', relation);
  IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                 WHERE p.pubname = 'pgdoc' AND r.prrelid = relation) THEN
    EXECUTE format('ALTER PUBLICATION pgdoc ADD TABLE %s', relation);
  END IF;
  INSERT INTO pgdoc.published
  SELECT r.oid, n.nspname, c.relname, CASE WHEN is_new THEN '0/0' ELSE pg_current_wal_insert_lsn() END
  FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE p.pubname = 'pgdoc' AND r.prrelid = relation
  ON CONFLICT (member) DO NOTHING;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.publish(schema_name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  relation regclass;
BEGIN
  PERFORM set_config('lock_timeout', '2s', true);
  PERFORM pgdoc.check_publication_owner();
  INSERT INTO pgdoc.published SELECT oid, '', '', pg_current_wal_insert_lsn() FROM pg_publication WHERE pubname = 'pgdoc'
  ON CONFLICT (member) DO NOTHING;
  FOR relation IN SELECT pgdoc.unpublished(schema_name) LOOP
    PERFORM pgdoc.publish_collection(relation);
  END LOOP;
  DELETE FROM pgdoc.published WHERE member IN (  -- rows of dropped collections that restrict nothing
    SELECT p.member FROM pgdoc.published p
    WHERE p.since = '0/0' AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.oid = p.member)
    FOR UPDATE SKIP LOCKED);
  RETURN pgdoc.publication_fault(schema_name);
END $$;

CREATE OR REPLACE FUNCTION pgdoc.equip_collection(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT relreplident <> 'f' FROM pg_class WHERE oid = relation) THEN
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', relation);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = 'pgdoc_before_update') THEN
    EXECUTE format('CREATE TRIGGER pgdoc_before_update BEFORE UPDATE ON %s '
      'FOR EACH ROW EXECUTE FUNCTION pgdoc.before_update()', relation);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = 'pgdoc_after_insert') THEN
    EXECUTE format('CREATE TRIGGER pgdoc_after_insert AFTER INSERT ON %s FOR EACH ROW '
      'WHEN (NEW.version <> 1 OR NEW.replaced_version <> 1 OR NEW.created_at <> now() OR NEW.updated_at <> now()) '
      'EXECUTE FUNCTION pgdoc.refuse_insert()', relation);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                   JOIN pgdoc.published known ON known.member = r.oid
                 WHERE p.pubname = 'pgdoc' AND r.prrelid = relation) THEN
    PERFORM pgdoc.publish_collection(relation);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.announce(event text, schema_name text, name text, renamed_to text DEFAULT NULL)
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
    PERFORM pgdoc.publish_collection(relation, is_new => true);
  END IF;
  PERFORM pgdoc.equip_collection(relation);
  IF made THEN
    PERFORM pgdoc.announce('create', schema_name, name);
  END IF;
  RETURN made;
END $$;

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

CREATE OR REPLACE FUNCTION pgdoc.announce_drops() RETURNS event_trigger LANGUAGE plpgsql
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

CREATE OR REPLACE FUNCTION pgdoc.remember_names() RETURNS event_trigger LANGUAGE plpgsql
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

CREATE OR REPLACE FUNCTION pgdoc.announce_renames() RETURNS event_trigger LANGUAGE plpgsql
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

CREATE OR REPLACE FUNCTION pgdoc.publish_tables() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  made record;
BEGIN
  IF tg_tag = 'ALTER SCHEMA' THEN  -- before PostgreSQL 16, pgoutput keeps the old schema name until something invalidates its cache
    ALTER PUBLICATION pgdoc SET (publish = 'insert, update, delete, truncate');
    RETURN;
  END IF;
  FOR made IN
    SELECT DISTINCT c.oid, n.nspname, c.relname, d.command_tag = 'CREATE TABLE' AS is_new
    FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE d.classid = 'pg_class'::regclass AND d.command_tag IN ('CREATE TABLE', 'ALTER TABLE')
      AND c.relkind = 'r' AND c.relpersistence = 'p'
      AND (c.relreplident = 'f' OR c.relreplident = 'd' AND EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))
      AND NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                      WHERE p.pubname = 'pgdoc' AND r.prrelid = c.oid)
      AND (d.command_tag = 'CREATE TABLE' OR pg_stat_get_xact_tuples_inserted(c.oid)
        + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid) = 0)
      AND 6 = (
        SELECT count(*) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND NOT a.attisdropped AND (a.attname, a.atttypid) IN (
          ('id', 'text'::regtype), ('data', 'jsonb'::regtype), ('version', 'bigint'::regtype),
          ('replaced_version', 'bigint'::regtype), ('created_at', 'timestamptz'::regtype),
          ('updated_at', 'timestamptz'::regtype)))
  LOOP
    EXECUTE format('ALTER PUBLICATION pgdoc ADD TABLE %s', made.oid::regclass);
    INSERT INTO pgdoc.published
    SELECT r.oid, made.nspname, made.relname, CASE WHEN made.is_new THEN '0/0' ELSE pg_current_wal_insert_lsn() END
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = 'pgdoc' AND r.prrelid = made.oid;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'pgdoc could not publish the table; streams that read through pgoutput miss its changes: %', SQLERRM;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.follow_ddl() RETURNS boolean LANGUAGE plpgsql AS $$
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
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgdoc_tables') THEN
    CREATE EVENT TRIGGER pgdoc_tables ON ddl_command_end
      WHEN TAG IN ('CREATE TABLE', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER SCHEMA') EXECUTE FUNCTION pgdoc.publish_tables();
    EXECUTE format('ALTER FUNCTION pgdoc.publish_tables() OWNER TO %I', current_user);
    EXECUTE format('ALTER TABLE pgdoc.published OWNER TO %I', current_user);
    EXECUTE (SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON pgdoc.published TO %I', pg_get_userbyid(pubowner))
             FROM pg_publication WHERE pubname = 'pgdoc');
  END IF;
  RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE NOTICE 'role % cannot create event triggers: streams report drops and renames made through pgdoc, but not those made in '
    'SQL, until a superuser runs SELECT pgdoc.follow_ddl()', current_user;
  RETURN false;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.follows_ddl() RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT count(*) = 3 FROM pg_event_trigger
  WHERE evtname IN ('pgdoc_drops', 'pgdoc_names', 'pgdoc_renames') AND evtenabled IN ('O', 'A')
$$;

DROP FUNCTION pgdoc.form_fault(regclass), pgdoc.is_bound();
DROP TABLE pgdoc.registry, pgdoc.registry_commits, pgdoc.identity;
DROP FUNCTION pgdoc.order_commits();
GRANT EXECUTE ON FUNCTION pgdoc.publish_collection(regclass, boolean) TO PUBLIC;
