-- Event triggers that follow what plain SQL does to collections. `pgdoc init` installs them as a role that may create event
-- triggers. They run inside every role's DDL, a superuser's too, so what they call and write belongs to that role.

CREATE OR REPLACE FUNCTION pgdoc.follow_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_event_trigger_dropped_objects() o
    WHERE o.classid = 'pg_class'::regclass AND o.objid IN (SELECT oid FROM pgdoc.registry WHERE until IS NULL)
      OR o.object_type = 'trigger' AND o.address_names[3] = 'pgdoc_before_update')
  THEN
    PERFORM pgdoc.follow(true);
  END IF;
EXCEPTION WHEN OTHERS THEN  -- no DDL fails because of pgdoc; readers find out by themselves
  RAISE WARNING 'pgdoc could not follow the DROP: %', SQLERRM;
END $$;

-- Refuses what would make the changes of a collection unreadable, and records new names.
CREATE OR REPLACE FUNCTION pgdoc.follow_alter() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  altered record;
BEGIN
  IF tg_tag = 'ALTER TABLE' THEN
    FOR altered IN
      SELECT c.oid::regclass AS relation, coalesce(pgdoc.form_fault(c.oid),
        CASE WHEN c.relreplident <> 'f' THEN 'without REPLICA IDENTITY FULL its changes have no before images' END) AS fault
      FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
      WHERE d.classid = 'pg_class'::regclass AND c.oid IN (SELECT oid FROM pgdoc.registry WHERE until IS NULL)
    LOOP
      IF altered.fault IS NOT NULL THEN
        RAISE EXCEPTION 'collection % can''t be changed like this: %', altered.relation, altered.fault
          USING ERRCODE = 'PGD03',
            HINT = format('To make it a plain table, run SELECT pgdoc.unregister(%L) first.', altered.relation::text);
      END IF;
    END LOOP;
  END IF;
  BEGIN
    IF tg_tag = 'ALTER SCHEMA' THEN  -- it locks no table: keep writers away until the new names are recorded
      LOCK TABLE pgdoc.registry IN SHARE ROW EXCLUSIVE MODE;
      FOR altered IN
        SELECT c.oid::regclass AS relation
        FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE r.until IS NULL AND n.nspname <> r.schema_name ORDER BY c.oid
      LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', altered.relation);
      END LOOP;
    END IF;
    PERFORM pgdoc.follow(true);
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'pgdoc could not follow the %: %', tg_tag, SQLERRM;
  END;
END $$;

REVOKE ALL ON FUNCTION pgdoc.follow_drop(), pgdoc.follow_alter() FROM PUBLIC;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgdoc_drops') THEN
    CREATE EVENT TRIGGER pgdoc_drops ON sql_drop EXECUTE FUNCTION pgdoc.follow_drop();
  END IF;
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgdoc_alters') THEN
    CREATE EVENT TRIGGER pgdoc_alters ON ddl_command_end WHEN TAG IN ('ALTER TABLE', 'ALTER INDEX', 'ALTER SCHEMA')
      EXECUTE FUNCTION pgdoc.follow_alter();
  END IF;
END $$;
