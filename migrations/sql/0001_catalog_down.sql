-- Keeps the users' tables with their data and CHECK constraints. Drops the triggers and everything else that calls functions
-- of the schema pgdoc.
DROP PUBLICATION IF EXISTS pgdoc;
DROP TABLE pgdoc.settings;
DO $$
DECLARE
  routine regprocedure;
BEGIN
  FOR routine IN SELECT oid FROM pg_proc WHERE pronamespace = 'pgdoc'::regnamespace LOOP
    EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', routine);
  END LOOP;
END $$;
