-- What pgoutput sends is what the publication "pgdoc" had at the point of the WAL that is decoded: a table that joined it
-- later is missing before that, without a word. So it stands here since when each is in it, and who resumes from before
-- that is told so.
--
-- It lists tables. FOR TABLES IN SCHEMA would follow every table by itself, and then tables that are no collections, too:
-- an UPDATE of one without a replica identity would fail for everyone. And only a superuser may have it.

CREATE TABLE pgdoc.published (
  member      oid PRIMARY KEY,
  schema_name text NOT NULL,
  name        text NOT NULL,
  since       pg_lsn NOT NULL
);
COMMENT ON TABLE pgdoc.published IS 'since when streams that read through pgoutput miss nothing of a collection';
COMMENT ON COLUMN pgdoc.published.member IS 'the oid in pg_publication_rel; with an empty name that of the publication';
COMMENT ON COLUMN pgdoc.published.name IS 'what the collection was called when it was published';
COMMENT ON COLUMN pgdoc.published.since IS '0/0 where it was published before its first change';
GRANT SELECT ON pgdoc.published TO PUBLIC;

-- Those that are in it by now may have joined in any way.
INSERT INTO pgdoc.published
SELECT p.oid, '', '', pg_current_wal_insert_lsn() FROM pg_publication p WHERE p.pubname = 'pgdoc'
UNION ALL
SELECT r.oid, n.nspname, c.relname, pg_current_wal_insert_lsn()
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
  JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = 'pgdoc';

-- The collections of a schema that are not known to be in it from a known place on. Without a replica identity they stay
-- out, or their UPDATEs would fail.
CREATE FUNCTION pgdoc.unpublished(schema_name text) RETURNS SETOF regclass LANGUAGE sql STABLE AS $$
  WITH unknown AS MATERIALIZED (  -- few, so that few are looked at closely; NOT IN is hashed, whatever statistics say
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

-- What keeps streams from reading a schema through pgoutput, and what mends it, as the end of a sentence; NULL where
-- nothing does.
CREATE FUNCTION pgdoc.publication_fault(schema_name text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN p.oid IS NULL THEN 'is gone: run CREATE PUBLICATION pgdoc'
    WHEN NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate)
      THEN 'does not publish every kind of change: run ALTER PUBLICATION pgdoc SET (publish = ''insert, update, delete, truncate'')'
    WHEN EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL))
      THEN 'leaves out rows or columns: take those tables out of it and run SELECT pgdoc.publish(''' || schema_name || ''')'
    WHEN NOT EXISTS (SELECT FROM pgdoc.published WHERE member = p.oid)
      THEN 'was made anew: run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
    ELSE (SELECT 'lacks ' || string_agg(relation::text, ', ') || ': run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
          FROM pgdoc.unpublished(schema_name) AS relation)
  END
  FROM (SELECT) AS one LEFT JOIN pg_publication p ON p.pubname = 'pgdoc'
$$;

-- From where on streams on these collections, or on all, miss nothing. A catalog that was restored elsewhere has places of
-- another WAL, too.
CREATE FUNCTION pgdoc.published_since(in_schema text, names text[]) RETURNS pg_lsn LANGUAGE sql STABLE AS $$
  SELECT coalesce(max(since), '0/0') FROM pgdoc.published
  WHERE (name = '' OR schema_name = in_schema AND (names IS NULL OR name = ANY (names)))
    AND since <= pg_current_wal_insert_lsn()
$$;

-- Puts a collection into it. Whoever wrote to one that is older than this call is waited for, so that what commits beyond
-- the place that is noted is published whole.
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

-- Puts into it what is missing, and gives what is still wrong.
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
  DELETE FROM pgdoc.published WHERE member IN (  -- of collections that are gone, and say nothing
    SELECT p.member FROM pgdoc.published p
    WHERE p.since = '0/0' AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.oid = p.member)
    FOR UPDATE SKIP LOCKED);
  RETURN pgdoc.publication_fault(schema_name);
END $$;
COMMENT ON FUNCTION pgdoc.publish IS 'lets pgoutput send the collections of a schema that were made by hand; gives what is still wrong';


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


-- Tables that are made by hand are published as they are made, where a superuser lets it be so: this runs inside any DDL of
-- anybody, with a superuser's rights. So it calls nothing and writes nothing that another role could replace (see
-- `follow_ddl`), and an error of its own is a warning. A table that its transaction has written to before would miss that:
-- the next `watch` publishes it.
CREATE FUNCTION pgdoc.publish_tables() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  made record;
BEGIN
  IF tg_tag = 'ALTER SCHEMA' THEN  -- before PostgreSQL 16 pgoutput goes on with the old name, until something else has changed
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
  RAISE WARNING 'streams that read through pgoutput miss what was made: %', SQLERRM;
END $$;

-- The table that it writes to becomes the superuser's, too: its owner could have others' rights in a trigger on it.
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
  RAISE NOTICE 'role % may not create event triggers: streams are told of drops and renames by the library, not of those '
    'in SQL, until a superuser runs SELECT pgdoc.follow_ddl()', current_user;
  RETURN false;
END $$;
