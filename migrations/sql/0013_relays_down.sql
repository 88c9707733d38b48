CREATE OR REPLACE FUNCTION pgdoc.forget_handlers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM pgdoc.handlers WHERE consumer = NEW.name;
  RETURN NULL;
END $$;
DROP TABLE pgdoc.relays;
