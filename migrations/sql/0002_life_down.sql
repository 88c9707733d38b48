-- CASCADE drops the event triggers with their functions, whichever role owns them.
DROP FUNCTION pgdoc.announce_drops(), pgdoc.remember_names(), pgdoc.announce_renames() CASCADE;
DROP FUNCTION pgdoc.follow_ddl(), pgdoc.follows_ddl();

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
  RETURN made;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.drop_collection(schema_name text, name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  relation regclass := pgdoc.find_collection(schema_name, name);
BEGIN
  IF relation IS NOT NULL THEN
    EXECUTE format('DROP TABLE %s', relation);
  END IF;
  RETURN relation IS NOT NULL;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.rename_collection(schema_name text, old_name text, new_name text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  relation regclass := pgdoc.find_collection(schema_name, old_name);
BEGIN
  IF relation IS NOT NULL THEN
    EXECUTE format('ALTER TABLE %s RENAME TO %I', relation, new_name);
  END IF;
  RETURN relation IS NOT NULL;
END $$;

DROP FUNCTION pgdoc.announce(text, text, text, text);
