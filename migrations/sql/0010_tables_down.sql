-- Reverts 0010_tables.sql. Tables that are watched as they are become plain tables; their replica identity stays.
DO $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT r.oid::regclass FROM pgdoc.registry r JOIN pg_publication_rel p ON p.prrelid = r.oid
      JOIN pg_publication b ON b.oid = p.prpubid AND b.pubname = 'pgdoc'
    WHERE r.kind = 'table' AND r.until IS NULL
  LOOP
    EXECUTE format('ALTER PUBLICATION pgdoc DROP TABLE ONLY %s', relation);
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.follow(just_changed oid[], all_others boolean) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was record;
  renamed oid[] := '{}';
  new_schemas text[] := '{}';
  new_names text[] := '{}';
BEGIN
  IF NOT pgdoc.is_bound() THEN
    RETURN;
  END IF;
  FOR was IN
    SELECT r.ctid, r.oid, r.schema_name, r.name, n.nspname::text AS new_schema, c.relname::text AS new_name,
      CASE
        WHEN c.oid IS NULL THEN 'drop'
        WHEN t.oid IS NULL THEN 'unregister'
        WHEN n.nspname <> r.schema_name THEN 'move'
        ELSE 'rename'
      END AS change
    FROM pgdoc.registry r LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind = 'r'
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'
    WHERE r.until IS NULL AND (all_others OR r.oid = ANY (just_changed))
      AND (c.oid IS NULL OR t.oid IS NULL OR n.nspname <> r.schema_name OR c.relname <> r.name)
    ORDER BY r.schema_name, r.name
    FOR UPDATE OF r SKIP LOCKED
  LOOP
    UPDATE pgdoc.registry
    SET until = pg_current_wal_insert_lsn(), closed_by = was.change, closed_xid = pg_current_xact_id(), exact = exact AND was.oid = ANY (just_changed)
    WHERE ctid = was.ctid;
    IF was.change IN ('rename', 'move') THEN
      renamed := renamed || was.oid;
      new_schemas := new_schemas || was.new_schema;  -- a name read later may be the next one already
      new_names := new_names || was.new_name;
    END IF;
  END LOOP;
  IF cardinality(renamed) > 0 THEN  -- after all were closed: two collections may have exchanged their names
    INSERT INTO pgdoc.registry (oid, schema_name, name, since, opened_by, from_name, exact)
    SELECT old.oid, now.schema_name, now.name, old.until, old.closed_by,
      CASE old.closed_by WHEN 'rename' THEN old.name END, old.oid = ANY (just_changed)
    FROM pgdoc.registry old JOIN unnest(renamed, new_schemas, new_names) AS now(oid, schema_name, name) ON now.oid = old.oid
    WHERE old.closed_xid = pg_current_xact_id()
      AND old.until = (SELECT max(r.until) FROM pgdoc.registry r WHERE r.oid = old.oid)
    ORDER BY old.schema_name, old.name;
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.is_followed() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (
    SELECT FROM pgdoc.registry r LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind = 'r'
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'
    WHERE r.until IS NULL
      AND (c.oid IS NULL OR t.oid IS NULL OR n.nspname <> r.schema_name OR c.relname <> r.name))
$$;

DROP FUNCTION pgdoc.registry_changes, pgdoc.remove_table, pgdoc.leave_table, pgdoc.add_table, pgdoc.publish_once,
  pgdoc.claim_registry, pgdoc.enter_table, pgdoc.check_owner_of, pgdoc.refuse_watching, pgdoc.tables, pgdoc.is_table, pgdoc.table_fault,
  pgdoc.table_key, pgdoc.table_columns, pgdoc.type_form;

DELETE FROM pgdoc.registry WHERE kind = 'table';
ALTER TABLE pgdoc.registry
  DROP COLUMN kind, DROP COLUMN key, DROP COLUMN document, DROP COLUMN columns, DROP COLUMN was_default,
  DROP CONSTRAINT registry_opened_by_check,
  DROP CONSTRAINT registry_closed_by_check,
  ADD CONSTRAINT registry_opened_by_check CHECK (opened_by IN ('create', 'rename', 'move')),
  ADD CONSTRAINT registry_closed_by_check CHECK (closed_by IN ('drop', 'rename', 'move', 'unregister'));
