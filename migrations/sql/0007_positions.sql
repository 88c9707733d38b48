-- A stored position names its database, beside the cluster. The rows there are belong to this database; a copy of it, or a
-- restore, keeps them and has another oid.
DO $$
DECLARE
  relation text;
BEGIN
  FOREACH relation IN ARRAY ARRAY['pgdoc.consumers', 'pgdoc.consumer_progress'] LOOP
    -- A constant default rewrites no rows, so this waits for no checkpoint's row lock beyond the table's own.
    EXECUTE pg_catalog.format(
      'ALTER TABLE %s ADD COLUMN database_oid pg_catalog.oid NOT NULL DEFAULT %L', relation,
      (SELECT d.oid FROM pg_catalog.pg_database AS d
       WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()));
    EXECUTE pg_catalog.format('ALTER TABLE %s ALTER COLUMN database_oid DROP DEFAULT', relation);
  END LOOP;
END $$;
COMMENT ON COLUMN pgdoc.consumers.database_oid IS 'the database in which the position was stored; a copy of the database has another oid';
COMMENT ON COLUMN pgdoc.consumer_progress.database_oid IS 'the database in which the position was stored, as in consumers';


-- The trigger fires in every session, those with session_replication_role = replica included: an UPDATE that does not
-- change the version would be taken for a replacement, and `if_version` would pass over it.
CREATE OR REPLACE FUNCTION pgdoc.before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id OPERATOR(pg_catalog.<>) OLD.id OR NEW.version OPERATOR(pg_catalog.<>) OLD.version THEN  -- one test in the usual case
    IF NEW.id OPERATOR(pg_catalog.<>) OLD.id THEN
      RAISE EXCEPTION 'cannot change the id of document % in %.%', OLD.id, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation', HINT = 'Delete the document and insert it with the new id.';
    END IF;
    -- A logical subscriber applies the publisher's row, which has its own version and times.
    IF pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica' THEN
      RETURN NEW;
    END IF;
  END IF;
  NEW.version := OLD.version OPERATOR(pg_catalog.+) 1;
  IF (NEW.replaced_version OPERATOR(pg_catalog.=) NEW.version) IS NOT TRUE THEN
    NEW.replaced_version := OLD.replaced_version;
  END IF;
  NEW.created_at := OLD.created_at;
  NEW.updated_at := pg_catalog.now();
  RETURN NEW;
END $$;

DO $$
DECLARE
  found record;
BEGIN
  FOR found IN
    SELECT t.tgrelid::pg_catalog.regclass AS relation, pg_catalog.pg_has_role(c.relowner, 'USAGE') AS is_ours
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
    WHERE t.tgname OPERATOR(pg_catalog.=) 'pgdoc_before_update'
      AND t.tgfoid OPERATOR(pg_catalog.=) 'pgdoc.before_update()'::pg_catalog.regprocedure::pg_catalog.oid
      AND t.tgenabled OPERATOR(pg_catalog.=) 'O'::pg_catalog."char"
  LOOP
    IF found.is_ours THEN
      EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgdoc_before_update', found.relation);
    ELSE
      RAISE WARNING 'collection % counts no versions for sessions with session_replication_role = replica: as its owner, run SELECT pgdoc.register(%)',
        found.relation, pg_catalog.quote_literal(found.relation::pg_catalog.text);
    END IF;
  END LOOP;
END $$;
