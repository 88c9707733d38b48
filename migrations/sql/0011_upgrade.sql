-- What `pgdoc upgrade prepare` and `pgdoc upgrade finish` leave for each other, and how a database takes no writes between
-- them. Tables, rows and triggers get to the new cluster by pg_upgrade, and by a dump, too.

CREATE TABLE pgdoc.upgrade (
  only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  system_id   bigint NOT NULL,
  server      text NOT NULL,
  began_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  is_prepared boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE pgdoc.upgrade IS 'the upgrade of PostgreSQL that is being prepared; no row if none is';
COMMENT ON COLUMN pgdoc.upgrade.system_id IS 'of the cluster to be upgraded';
COMMENT ON COLUMN pgdoc.upgrade.is_prepared IS 'whether every consumer has read to the end; its slot is then dropped';

CREATE TABLE pgdoc.upgrade_consumers (
  name     text PRIMARY KEY REFERENCES pgdoc.consumers ON DELETE CASCADE,
  plugin   text NOT NULL,
  is_moved boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE pgdoc.upgrade_consumers IS 'the consumers that need a new slot after the upgrade';
COMMENT ON COLUMN pgdoc.upgrade_consumers.is_moved IS 'whether the consumer has its new slot and position';

CREATE TABLE pgdoc.former_clusters (
  system_id   bigint PRIMARY KEY,
  replaced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  is_upgrade  boolean NOT NULL
);
COMMENT ON TABLE pgdoc.former_clusters IS 'the clusters in which this database was before; a resume token has the system identifier of its cluster';
COMMENT ON COLUMN pgdoc.former_clusters.is_upgrade IS 'whether the database was upgraded, and not copied or restored';
GRANT SELECT ON pgdoc.former_clusters TO PUBLIC;

CREATE FUNCTION pgdoc.refuse_frozen() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'table %.% takes no writes: its database is prepared for an upgrade of PostgreSQL', TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'PGD06', HINT = 'After the upgrade, run `pgdoc upgrade finish`. To go on without it, run `pgdoc upgrade prepare --cancel`.';
END $$;

CREATE FUNCTION pgdoc.is_frozen(relation regclass) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) = 2 FROM pg_trigger t
  WHERE t.tgrelid = relation AND t.tgfoid = 'pgdoc.refuse_frozen()'::regprocedure AND t.tgenabled = 'A'
    AND t.tgname IN ('pgdoc_frozen', 'pgdoc_frozen_rows')
$$;
COMMENT ON FUNCTION pgdoc.is_frozen IS 'whether a table refuses writes';

CREATE FUNCTION pgdoc.is_prepared() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgdoc.is_frozen('pgdoc.owners')
$$;
COMMENT ON FUNCTION pgdoc.is_prepared IS 'whether this database is prepared for an upgrade of PostgreSQL';

CREATE OR REPLACE FUNCTION pgdoc.check_bound() RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pgdoc.is_bound() THEN
    RAISE EXCEPTION 'the registry of collections belongs to another database: this one was upgraded, is a copy, or was restored from a dump'
      USING ERRCODE = 'PGD01', HINT = CASE WHEN pgdoc.is_prepared() THEN 'Run `pgdoc upgrade finish` as the catalog''s owner.'
        ELSE 'Run `pgdoc init` as the catalog''s owner, or SELECT pgdoc.rebind().' END;
  END IF;
END $$;

-- SHARE ROW EXCLUSIVE waits for every transaction that has written to the table. The trigger for rows is for what reaches a
-- partition through its parent, and for subscriptions, which run no triggers for statements. It is an AFTER trigger, because
-- pgdoc takes one before a row for a reason to write more slowly.
CREATE FUNCTION pgdoc.freeze_table(relation regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pgdoc.is_frozen(relation) THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_frozen BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
    'FOR EACH STATEMENT EXECUTE FUNCTION pgdoc.refuse_frozen()', relation);
  EXECUTE format('CREATE OR REPLACE TRIGGER pgdoc_frozen_rows AFTER INSERT OR UPDATE OR DELETE ON %s '
    'FOR EACH ROW EXECUTE FUNCTION pgdoc.refuse_frozen()', relation);
  EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgdoc_frozen, ENABLE ALWAYS TRIGGER pgdoc_frozen_rows', relation);
END $$;

-- Every collection and watched table takes no more writes, and no other table becomes one. Tables come before the registry,
-- as in DDL; the second pass finds those that were registered meanwhile.
CREATE FUNCTION pgdoc.freeze() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_bound();
  PERFORM pgdoc.follow('{}', true);
  PERFORM pgdoc.freeze_table(r.oid) FROM (SELECT * FROM pgdoc.registry WHERE until IS NULL ORDER BY oid) AS r;
  LOCK TABLE pgdoc.registry IN SHARE ROW EXCLUSIVE MODE;
  PERFORM pgdoc.freeze_table(r.oid) FROM (SELECT * FROM pgdoc.registry WHERE until IS NULL ORDER BY oid) AS r;
  SET CONSTRAINTS pgdoc.pgdoc_order IMMEDIATE;  -- what `follow` has written would keep the registry from being altered
  SET CONSTRAINTS pgdoc.pgdoc_order DEFERRED;
  PERFORM pgdoc.freeze_table('pgdoc.registry');
  INSERT INTO pgdoc.upgrade (system_id, server)
  SELECT system_identifier, current_setting('server_version') FROM pg_control_system();
END $$;
COMMENT ON FUNCTION pgdoc.freeze IS 'makes all collections and watched tables refuse writes, for an upgrade of PostgreSQL';

CREATE FUNCTION pgdoc.thaw() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  frozen record;
BEGIN
  FOR frozen IN
    SELECT t.tgrelid::regclass AS relation, t.tgname AS name FROM pg_trigger t
    WHERE t.tgfoid = 'pgdoc.refuse_frozen()'::regprocedure ORDER BY t.tgrelid, t.tgname
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', frozen.name, frozen.relation);
  END LOOP;
  DELETE FROM pgdoc.upgrade_consumers;
  DELETE FROM pgdoc.upgrade;
END $$;
COMMENT ON FUNCTION pgdoc.thaw IS 'ends what pgdoc.freeze has begun';

-- Readers keep no history while the database is prepared: pg_upgrade refuses a bookmark.
CREATE OR REPLACE FUNCTION pgdoc.keeps_history() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_stat_clear_snapshot();
  RETURN NOT pgdoc.is_prepared() AND NOT EXISTS (
    SELECT FROM pgdoc.sessions s
    WHERE s.task = 'history' AND s.pid <> pg_backend_pid() AND pgdoc.is_open(s)
      AND s.number < coalesce(
        (SELECT max(number) FROM pgdoc.sessions WHERE task = 'history' AND pid = pg_backend_pid()), s.number + 1));
END $$;

-- The registry stays frozen for all others: none of this is visible before the transaction commits. A later revision that
-- writes to the registry has to do the same, because `pgdoc upgrade finish` runs it while the registry is frozen.
ALTER FUNCTION pgdoc.rebind() RENAME TO rebind_registry;
CREATE FUNCTION pgdoc.rebind() RETURNS text[] LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was_frozen boolean := pgdoc.is_frozen('pgdoc.registry');
  found text[];
BEGIN
  IF pgdoc.is_bound() THEN
    RETURN '{}';
  END IF;
  INSERT INTO pgdoc.former_clusters (system_id, is_upgrade)
  SELECT i.system_id, i.registry_oid = 'pgdoc.registry'::regclass FROM pgdoc.identity i, pg_control_system() s
  WHERE i.system_id <> s.system_identifier
  ON CONFLICT (system_id) DO NOTHING;
  IF was_frozen THEN
    DROP TRIGGER pgdoc_frozen ON pgdoc.registry;
    DROP TRIGGER pgdoc_frozen_rows ON pgdoc.registry;
  END IF;
  found := pgdoc.rebind_registry();
  IF was_frozen THEN
    SET CONSTRAINTS pgdoc.pgdoc_order IMMEDIATE;
    SET CONSTRAINTS pgdoc.pgdoc_order DEFERRED;
    PERFORM pgdoc.freeze_table('pgdoc.registry');
  END IF;
  RETURN found;
END $$;
COMMENT ON FUNCTION pgdoc.rebind IS 'registers the collections of an upgraded, copied or restored database as its own; returns their tables';

REVOKE ALL ON FUNCTION pgdoc.refuse_frozen(), pgdoc.freeze_table(regclass), pgdoc.freeze(), pgdoc.thaw(), pgdoc.rebind(),
  pgdoc.rebind_registry() FROM PUBLIC;
