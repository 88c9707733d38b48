-- pgoutput sends the tables that the publication "pgdoc" held at the point of the WAL being decoded. It silently skips
-- changes that a table had before it joined. pgdoc.published records when each collection joined, so that a stream that
-- resumes from before that point fails instead of missing changes.
--
-- The publication lists tables. FOR TABLES IN SCHEMA would need no list, but it would also publish tables that are not
-- collections, where an UPDATE without a replica identity then fails for everyone; and it requires a superuser.

CREATE TABLE pgdoc.published (
  member      oid PRIMARY KEY,
  schema_name text NOT NULL,
  name        text NOT NULL,
  since       pg_lsn NOT NULL
);
COMMENT ON TABLE pgdoc.published IS 'the LSN from which streams that read through pgoutput see every change of a collection';
COMMENT ON COLUMN pgdoc.published.member IS 'oid in pg_publication_rel; in the row with an empty name, the oid of the publication';
COMMENT ON COLUMN pgdoc.published.name IS 'name of the collection when it was published';
COMMENT ON COLUMN pgdoc.published.since IS '0/0 if it was published before its first change';
GRANT SELECT ON pgdoc.published TO PUBLIC;

-- Nothing is known about when the present members joined, so they count from now.
INSERT INTO pgdoc.published
SELECT p.oid, '', '', pg_current_wal_insert_lsn() FROM pg_publication p WHERE p.pubname = 'pgdoc'
UNION ALL
SELECT r.oid, n.nspname, c.relname, pg_current_wal_insert_lsn()
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
  JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = 'pgdoc';

-- The collections of a schema that the publication lacks, or holds since an unknown LSN. Tables without a replica identity
-- are excluded: publishing them would make their UPDATEs fail.
CREATE FUNCTION pgdoc.unpublished(schema_name text) RETURNS SETOF regclass LANGUAGE sql STABLE AS $$
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

-- Why streams cannot read a schema through pgoutput, and the fix: the end of a sentence that starts with 'the publication
-- "pgdoc"'. NULL if there is no fault.
CREATE FUNCTION pgdoc.publication_fault(schema_name text) RETURNS text LANGUAGE sql STABLE AS $$
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

-- The LSN from which streams on these collections see every change; names IS NULL means all collections. Ignores LSNs ahead
-- of this WAL: a catalog restored from a dump has LSNs of another server.
CREATE FUNCTION pgdoc.published_since(in_schema text, names text[]) RETURNS pg_lsn LANGUAGE sql STABLE AS $$
  SELECT coalesce(max(since), '0/0') FROM pgdoc.published
  WHERE (name = '' OR schema_name = in_schema AND (names IS NULL OR name = ANY (names)))
    AND since <= pg_current_wal_insert_lsn()
$$;

-- Adds a collection to the publication. SHARE ROW EXCLUSIVE waits for every open transaction that wrote to the table, so
-- that each transaction that commits after the recorded LSN is published completely.
CREATE FUNCTION pgdoc.publish_collection(relation regclass, is_new boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
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

-- Adds the missing collections and returns the remaining fault, or NULL. lock_timeout keeps it from waiting long for writers.
CREATE FUNCTION pgdoc.publish(schema_name text) RETURNS text LANGUAGE plpgsql AS $$
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
COMMENT ON FUNCTION pgdoc.publish IS 'adds the collections of a schema that were created by hand to the publication; returns the remaining fault';


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


-- Publishes a table created by hand in the same command, once a superuser has run `follow_ddl`. SECURITY DEFINER, and
-- inside every role's DDL, it has a superuser's rights: so search_path is fixed, it calls and writes nothing that another
-- role could replace (see `follow_ddl`), and its own errors become warnings. It skips a table that the transaction has
-- already written to, because those changes would be missing; the next `watch` publishes that table.
CREATE FUNCTION pgdoc.publish_tables() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
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

-- The superuser also becomes the owner of pgdoc.published: its owner could add a trigger, which would run with the rights
-- of every role that writes to it.
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
