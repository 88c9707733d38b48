-- The users' tables stay, with their data and their checks; only what calls into the schema goes.
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
