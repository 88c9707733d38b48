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
