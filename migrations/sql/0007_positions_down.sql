ALTER TABLE pgdoc.consumer_progress DROP COLUMN database_oid;
ALTER TABLE pgdoc.consumers DROP COLUMN database_oid;

CREATE OR REPLACE FUNCTION pgdoc.before_update() RETURNS trigger LANGUAGE plpgsql AS $$
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

DO $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT t.tgrelid FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgname = 'pgdoc_before_update' AND t.tgenabled = 'A' AND pg_has_role(c.relowner, 'USAGE')
  LOOP
    EXECUTE format('ALTER TABLE %s ENABLE TRIGGER pgdoc_before_update', relation);
  END LOOP;
END $$;
