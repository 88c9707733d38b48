DROP TRIGGER pgdoc_forget_dropped ON pgdoc.consumers;
DROP FUNCTION pgdoc.forget_dropped();
DELETE FROM pgdoc.handlers h WHERE NOT EXISTS (SELECT FROM pgdoc.consumers c WHERE c.name = h.consumer);
ALTER TABLE pgdoc.handlers ADD CONSTRAINT handlers_consumer_fkey FOREIGN KEY (consumer) REFERENCES pgdoc.consumers ON DELETE CASCADE;
COMMENT ON COLUMN pgdoc.handlers.consumer IS NULL;
ALTER TABLE pgdoc.handlers DROP COLUMN log;
CREATE OR REPLACE FUNCTION pgdoc.forget_handlers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM pgdoc.handlers WHERE consumer = NEW.name;
  RETURN NULL;
END $$;
DROP TABLE pgdoc.relays;
