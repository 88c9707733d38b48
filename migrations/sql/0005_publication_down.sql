-- CASCADE drops the event trigger with its function, whichever role owns it.
DROP FUNCTION pgdoc.publish_tables() CASCADE;

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
  RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE NOTICE 'role % cannot create event triggers: streams report drops and renames made through pgdoc, but not those made in '
    'SQL, until a superuser runs SELECT pgdoc.follow_ddl()', current_user;
  RETURN false;
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
  END IF;
  PERFORM pgdoc.equip_collection(relation);
  IF made THEN
    PERFORM pgdoc.announce('create', schema_name, name);
  END IF;
  RETURN made;
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
                 WHERE p.pubname = 'pgdoc' AND r.prrelid = relation) THEN
    PERFORM pgdoc.check_publication_owner();
    EXECUTE format('ALTER PUBLICATION pgdoc ADD TABLE %s', relation);
  END IF;
END $$;

DROP FUNCTION pgdoc.publish(text), pgdoc.publish_collection(regclass, boolean), pgdoc.published_since(text, text[]),
  pgdoc.publication_fault(text), pgdoc.unpublished(text);
DROP TABLE pgdoc.published;
