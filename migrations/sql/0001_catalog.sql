-- The catalog: settings, the publication, and the functions that turn a plain table into a collection.

CREATE TABLE pgdoc.settings (
  only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  history_time      interval NOT NULL DEFAULT '1 hour' CHECK (history_time >= '0'),
  history_size      bigint NOT NULL DEFAULT 1073741824 CHECK (history_size >= 0),
  history_bookmarks integer NOT NULL DEFAULT 4 CHECK (history_bookmarks >= 0),
  history_chosen    boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE pgdoc.settings IS 'how much history this database keeps for change streams to resume from; one row';
INSERT INTO pgdoc.settings DEFAULT VALUES;

CREATE PUBLICATION pgdoc WITH (publish = 'insert, update, delete, truncate');


CREATE FUNCTION pgdoc.set_metadata(metadata jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF jsonb_typeof(metadata) IS DISTINCT FROM 'object' THEN
    RAISE EXCEPTION 'metadata must be a JSON object, got %', coalesce('a JSON ' || jsonb_typeof(metadata), 'NULL')
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a JSON object, such as {"user": "bob"}.';
  END IF;
  PERFORM pg_logical_emit_message(true, 'pgdoc', jsonb_build_object('metadata', metadata)::text);
END $$;
COMMENT ON FUNCTION pgdoc.set_metadata IS 'attaches metadata to the changes that follow in the same transaction';


-- Keeps version, replaced_version and the timestamps right, whatever an UPDATE sets them to. It runs for every updated
-- row, so it does nothing but assign columns.
CREATE FUNCTION pgdoc.before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id <> OLD.id THEN
    RAISE EXCEPTION 'cannot change the id of document % in %.%', OLD.id, TG_TABLE_SCHEMA, TG_TABLE_NAME
      USING ERRCODE = 'integrity_constraint_violation', HINT = 'Delete the document and insert it with the new id.';
  END IF;
  NEW.version := OLD.version + 1;
  IF NEW.replaced_version IS DISTINCT FROM NEW.version THEN
    NEW.replaced_version := OLD.replaced_version;
  END IF;
  NEW.created_at := OLD.created_at;
  NEW.updated_at := now();
  RETURN NEW;
END $$;

-- A BEFORE INSERT trigger could correct the columns instead, but it would disable COPY's multi-insert. The trigger's WHEN
-- clause calls this function only for a row that sets one of them.
CREATE FUNCTION pgdoc.refuse_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'document % in %.% sets a version or timestamp column', NEW.id, TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'integrity_constraint_violation', HINT = 'Insert only id and data: the other columns have defaults.';
END $$;


CREATE FUNCTION pgdoc.is_collection(relation regclass) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT count(*) = 6
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE c.oid = relation AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT a.attisdropped
    AND (a.attname, a.atttypid) IN (
      ('id', 'text'::regtype), ('data', 'jsonb'::regtype), ('version', 'bigint'::regtype),
      ('replaced_version', 'bigint'::regtype), ('created_at', 'timestamptz'::regtype),
      ('updated_at', 'timestamptz'::regtype))
$$;

CREATE FUNCTION pgdoc.collections(schema_name text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT c.relname::text
  FROM pg_class c
  WHERE c.relnamespace = to_regnamespace(quote_ident(schema_name)) AND pgdoc.is_collection(c.oid)
  ORDER BY c.relname::text COLLATE "C"
$$;

-- Returns NULL if there is no such table; fails if the table is not a collection.
CREATE FUNCTION pgdoc.find_collection(schema_name text, name text) RETURNS regclass LANGUAGE plpgsql STABLE AS $$
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

CREATE FUNCTION pgdoc.check_publication_owner() RETURNS void LANGUAGE plpgsql STABLE AS $$
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

-- Adds what a collection needs besides its columns: replica identity, triggers, membership in the publication. Keeps what
-- exists.
CREATE FUNCTION pgdoc.equip_collection(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
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

CREATE FUNCTION pgdoc.create_collection(schema_name text, name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  relation regclass;
  made boolean;
BEGIN
  -- Serializes concurrent creation of the same collection: the second caller waits, then finds the table.
  PERFORM pg_advisory_xact_lock(hashtextextended(format('pgdoc %I.%I', schema_name, name), 0));
  relation := pgdoc.find_collection(schema_name, name);
  made := relation IS NULL;
  IF made THEN
    PERFORM pgdoc.check_publication_owner();
    IF to_regnamespace(quote_ident(schema_name)) IS NULL THEN
      -- CREATE SCHEMA IF NOT EXISTS fails when two sessions run it at once.
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
COMMENT ON FUNCTION pgdoc.create_collection IS 'creates a collection; returns false if it exists';

CREATE FUNCTION pgdoc.drop_collection(schema_name text, name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  relation regclass := pgdoc.find_collection(schema_name, name);
BEGIN
  IF relation IS NOT NULL THEN
    EXECUTE format('DROP TABLE %s', relation);
  END IF;
  RETURN relation IS NOT NULL;
END $$;
COMMENT ON FUNCTION pgdoc.drop_collection IS 'drops a collection and its documents; returns false if there is none';

CREATE FUNCTION pgdoc.rename_collection(schema_name text, old_name text, new_name text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  relation regclass := pgdoc.find_collection(schema_name, old_name);
BEGIN
  IF relation IS NOT NULL THEN
    EXECUTE format('ALTER TABLE %s RENAME TO %I', relation, new_name);
  END IF;
  RETURN relation IS NOT NULL;
END $$;
COMMENT ON FUNCTION pgdoc.rename_collection IS 'renames a collection; returns false if there is none';


GRANT USAGE ON SCHEMA pgdoc TO PUBLIC;
GRANT SELECT ON pgdoc.settings, pgdoc.alembic_version TO PUBLIC;

-- A downgrade turns collections into plain tables; this turns them into collections again.
-- A table that only looks like one must not stop the installation.
DO $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT conrelid FROM pg_constraint WHERE conname = 'pgdoc_data' AND contype = 'c' AND pgdoc.is_collection(conrelid)
      AND NOT (SELECT relispartition FROM pg_class WHERE oid = conrelid)
  LOOP
    BEGIN
      PERFORM pgdoc.equip_collection(relation);
    EXCEPTION
      WHEN lock_not_available OR deadlock_detected THEN
        RAISE;
      WHEN OTHERS THEN
        RAISE WARNING 'table % is not a collection: %', relation, SQLERRM;
    END;
  END LOOP;
END $$;
