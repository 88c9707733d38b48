SELECT pgdoc.thaw();
DROP FUNCTION pgdoc.rebind();
ALTER FUNCTION pgdoc.rebind_registry() RENAME TO rebind;
COMMENT ON FUNCTION pgdoc.rebind IS 'registers the collections of a copied or restored database as its own; returns their tables';

CREATE OR REPLACE FUNCTION pgdoc.keeps_history() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_stat_clear_snapshot();
  RETURN NOT EXISTS (
    SELECT FROM pgdoc.sessions s
    WHERE s.task = 'history' AND s.pid <> pg_backend_pid() AND pgdoc.is_open(s)
      AND s.number < coalesce(
        (SELECT max(number) FROM pgdoc.sessions WHERE task = 'history' AND pid = pg_backend_pid()), s.number + 1));
END $$;

CREATE OR REPLACE FUNCTION pgdoc.check_bound() RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pgdoc.is_bound() THEN
    RAISE EXCEPTION 'the registry of collections belongs to another database: this one is a copy, or was restored from a dump'
      USING ERRCODE = 'PGD01', HINT = 'Run `pgdoc init` as the catalog''s owner, or SELECT pgdoc.rebind().';
  END IF;
END $$;

DROP FUNCTION pgdoc.freeze(), pgdoc.thaw(), pgdoc.freeze_table(regclass), pgdoc.is_prepared(), pgdoc.is_frozen(regclass),
  pgdoc.refuse_frozen();
DROP TABLE pgdoc.upgrade_consumers, pgdoc.upgrade, pgdoc.former_clusters;
