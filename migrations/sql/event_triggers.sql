-- Event triggers that follow what plain SQL does to collections. `pgdoc init` installs them as a role that may create event
-- triggers. They run inside every role's DDL, a superuser's too, so what they call and write belongs to that role.

CREATE OR REPLACE FUNCTION pgdoc.follow_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  changed oid[];
BEGIN
  SELECT array_agg(found.oid) INTO changed
  FROM (  -- two joins that can use an index: there can be many objects and many collections
    SELECT r.oid FROM pg_event_trigger_dropped_objects() o JOIN pgdoc.registry r ON r.oid = o.objid
    WHERE r.until IS NULL AND o.classid = 'pg_class'::regclass AND o.objsubid = 0
    UNION
    SELECT r.oid FROM pg_event_trigger_dropped_objects() o
      JOIN pgdoc.registry r ON r.schema_name = o.address_names[1] AND r.name = o.address_names[2]
    WHERE r.until IS NULL AND o.object_type = 'trigger' AND o.address_names[3] = 'pgdoc_before_update'
    UNION  -- columns that go with their type; pgdoc_alters follows what ALTER drops
    SELECT r.oid FROM pg_event_trigger_dropped_objects() o JOIN pgdoc.registry r ON r.oid = o.objid
    WHERE r.until IS NULL AND r.kind = 'table' AND o.classid = 'pg_class'::regclass AND o.objsubid <> 0 AND tg_tag NOT IN ('ALTER TABLE', 'ALTER TYPE')
  ) AS found;
  PERFORM pgdoc.check_dropped_partitions();
  IF changed IS NOT NULL THEN
    PERFORM pgdoc.follow(changed, false);
  END IF;
EXCEPTION
  WHEN deadlock_detected OR lock_not_available OR serialization_failure OR SQLSTATE 'PGD03' OR SQLSTATE 'PGD06' THEN
    RAISE;  -- the command would have failed like this at any other table and can be repeated, or it is refused
  WHEN OTHERS THEN  -- readers find out by themselves
    RAISE WARNING 'pgdoc could not follow the DROP: %', SQLERRM;
END $$;

-- Refuses to drop a partition of a collection that stays: its documents would be gone without an event.
CREATE OR REPLACE FUNCTION pgdoc.check_dropped_partitions() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  dropped record;
BEGIN
  IF NOT pgdoc.knows_partitions() THEN
    RETURN;
  END IF;
  FOR dropped IN
    SELECT o.object_identity AS name, r.oid::regclass AS root
    FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid CROSS JOIN pg_event_trigger_dropped_objects() o
    WHERE r.until IS NULL AND r.partitions IS NOT NULL AND o.classid = 'pg_class'::regclass AND o.objsubid = 0
      AND r.partitions ? o.objid::text AND pgdoc.is_bound()
  LOOP
    RAISE EXCEPTION 'table % can''t be dropped by itself: it is a partition of the collection %', dropped.name, dropped.root
      USING ERRCODE = 'PGD03', HINT = 'DELETE its documents, or drop the collection.';
  END LOOP;
END $$;

-- Whether the catalog has revision 0013: these functions stay when it is downgraded.
CREATE OR REPLACE FUNCTION pgdoc.knows_partitions() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'pgdoc.registry'::regclass AND attname = 'partitions' AND NOT attisdropped)
$$;

-- Whether a table is one of the partitions with which a collection was registered.
CREATE OR REPLACE FUNCTION pgdoc.is_partition(child oid, root oid) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN pgdoc.knows_partitions() AND EXISTS (
    SELECT FROM pgdoc.registry r WHERE r.oid = root AND r.until IS NULL AND r.partitions ? child::text);
END $$;

-- The tables that a command may have changed: those that it names, with their partitions and children, to which PostgreSQL
-- passes it on, and with their parents, whose partitions they are. What it did to a type may concern any watched table.
CREATE OR REPLACE FUNCTION pgdoc.altered_relations(tag text) RETURNS oid[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE named AS (
    SELECT d.objid AS oid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass AND tag <> 'CREATE TABLE'
    UNION
    SELECT i.inhrelid FROM named n JOIN pg_inherits i ON i.inhparent = n.oid
  )
  SELECT ARRAY(
    SELECT n.oid FROM named n
    UNION
    SELECT i.inhparent FROM named n JOIN pg_inherits i ON i.inhrelid = n.oid
    UNION
    SELECT r.oid
    FROM pgdoc.registry r JOIN pgdoc.table_prints(ARRAY(SELECT w.oid FROM pgdoc.registry w WHERE w.until IS NULL AND w.kind = 'table')) AS now
      ON now.oid = r.oid
    WHERE tag = 'ALTER TYPE' AND r.until IS NULL AND r.print <> now.print)
$$;

-- Refuses what would make the changes of a collection or a watched table unreadable, and records new names and shapes.
CREATE OR REPLACE FUNCTION pgdoc.follow_alter() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
DECLARE
  altered record;
  changed oid[];
BEGIN
  FOR altered IN  -- their rows would be documents that no stream reports
    SELECT i.inhrelid::regclass AS child, r.oid::regclass AS relation
    FROM pg_event_trigger_ddl_commands() d JOIN pg_inherits i ON i.inhrelid = d.objid
      JOIN pgdoc.registry r ON r.oid = i.inhparent AND r.until IS NULL AND r.kind = 'collection'
    WHERE d.classid = 'pg_class'::regclass AND tg_tag IN ('CREATE TABLE', 'ALTER TABLE') AND pgdoc.is_bound()
      AND NOT pgdoc.is_partition(i.inhrelid, r.oid)
  LOOP
    RAISE EXCEPTION 'table % can''t inherit from the collection %', altered.child, altered.relation
      USING ERRCODE = 'PGD03', HINT = 'Create it with LIKE instead.';
  END LOOP;
  FOR altered IN
    SELECT found.*
    FROM (
      SELECT c.oid::regclass AS relation, r.kind, CASE
          WHEN r.kind = 'collection' THEN coalesce(pgdoc.form_fault(c.oid), unidentified.fault)
          ELSE (coalesce(pgdoc.table_fault(c.oid, r.document), pgdoc.publication_conflict(c.oid), ARRAY[unidentified.fault]))[1]
        END AS fault
      FROM unnest(pgdoc.altered_relations(tg_tag)) AS d(oid) JOIN pg_class c ON c.oid = d.oid
        JOIN pgdoc.registry r ON r.oid = c.oid AND r.until IS NULL,
        LATERAL (SELECT CASE WHEN c.relreplident <> 'f' OR c.relkind = 'p' AND EXISTS (
            SELECT FROM pg_inherits i JOIN pg_class part ON part.oid = i.inhrelid WHERE i.inhparent = c.oid AND part.relreplident <> 'f') THEN 'without REPLICA IDENTITY FULL its changes have no before images' END) AS unidentified(fault)
    ) AS found
    WHERE found.fault IS NOT NULL AND pgdoc.is_bound()  -- in a copy, the oids there can be those of any tables
  LOOP
    IF altered.kind = 'collection' THEN
      RAISE EXCEPTION 'collection % can''t be changed like this: %', altered.relation, altered.fault
        USING ERRCODE = 'PGD03', HINT = format('To make it a plain table, run SELECT pgdoc.unregister(%L) first.', altered.relation::text);
    END IF;
    RAISE EXCEPTION 'table % is watched by streams, and can''t be changed like this: %', altered.relation, altered.fault
      USING ERRCODE = 'PGD03', HINT = format('To end the watching of it, run SELECT pgdoc.remove_table(%L) first.', altered.relation::text);
  END LOOP;
  BEGIN
    IF tg_tag = 'ALTER SCHEMA' THEN
      -- It locks no table: keep writers away until the new names are recorded. The tables come before the registry, as in
      -- ALTER TABLE; the second pass finds those that were registered while this waited. A schema without collections must
      -- not lock the registry: its owner could keep everybody from registering, and would wait for each registration.
      changed := pgdoc.lock_renamed();
      IF cardinality(changed) > 0 THEN
        LOCK TABLE pgdoc.registry IN SHARE ROW EXCLUSIVE MODE;
        changed := pgdoc.lock_renamed();
      END IF;
    ELSE
      changed := ARRAY(SELECT r.oid FROM unnest(pgdoc.altered_relations(tg_tag)) AS d(oid) JOIN pgdoc.registry r ON r.oid = d.oid
                       WHERE r.until IS NULL);
    END IF;
    IF tg_tag IN ('ALTER SCHEMA', 'ALTER TYPE', 'ALTER DOMAIN') THEN  -- the types of columns may have another name now
      changed := changed || ARRAY(
        SELECT DISTINCT r.oid
        FROM pgdoc.registry r CROSS JOIN jsonb_array_elements(r.columns) AS known(item) JOIN pg_attribute a ON a.attrelid = r.oid
        WHERE r.until IS NULL AND r.kind = 'table' AND a.attname = known.item ->> 'name' AND a.attnum > 0
          AND format_type(a.atttypid, a.atttypmod) <> known.item ->> 'type');
    END IF;
    IF cardinality(changed) > 0 THEN
      PERFORM pgdoc.follow(changed, false);
    END IF;
  EXCEPTION
    WHEN deadlock_detected OR lock_not_available OR serialization_failure OR SQLSTATE 'PGD06' THEN
      RAISE;  -- the command would have failed like this at any other table and can be repeated, or the database is frozen
    WHEN OTHERS THEN  -- readers find out by themselves
      RAISE WARNING 'pgdoc could not follow the %: %', tg_tag, SQLERRM;
  END;
END $$;

-- Finds the schemas with collections whose name differs from the registry's, locks all of their tables, and returns them. Plain
-- tables are locked, too: until the rename commits, WAL records of their rows carry the old name, which a collection can get
-- in the same transaction. A table that another transaction has created and not committed yet can't be locked.
CREATE OR REPLACE FUNCTION pgdoc.lock_renamed() RETURNS oid[] LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  renamed oid;
  found oid[] := '{}';
BEGIN
  FOR renamed IN
    SELECT c.oid FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.relnamespace IN (
      SELECT n.oid
      FROM pgdoc.registry r JOIN pg_class t ON t.oid = r.oid JOIN pg_namespace n ON n.oid = t.relnamespace
      WHERE r.until IS NULL AND n.nspname <> r.schema_name)
    ORDER BY c.oid
  LOOP
    BEGIN
      PERFORM pgdoc.lock_table(renamed, 'SHARE ROW EXCLUSIVE');
      found := found || renamed;
    EXCEPTION WHEN undefined_table THEN
      NULL;  -- dropped meanwhile
    END;
  END LOOP;
  RETURN found;
END $$;

DO $$
DECLARE
  disabled name;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgdoc_drops') THEN
    CREATE EVENT TRIGGER pgdoc_drops ON sql_drop EXECUTE FUNCTION pgdoc.follow_drop();
  END IF;
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgdoc_alters' AND 'ALTER DOMAIN' = ANY (evttags)) THEN
    DROP EVENT TRIGGER IF EXISTS pgdoc_alters;
    CREATE EVENT TRIGGER pgdoc_alters ON ddl_command_end
      WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'ALTER INDEX', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER DOMAIN')
      EXECUTE FUNCTION pgdoc.follow_alter();
  END IF;
  FOR disabled IN
    SELECT evtname FROM pg_event_trigger WHERE evtname IN ('pgdoc_drops', 'pgdoc_alters') AND evtenabled NOT IN ('O', 'A')
  LOOP
    EXECUTE format('ALTER EVENT TRIGGER %I ENABLE', disabled);
    RAISE WARNING 'the event trigger % was disabled, and is enabled again', disabled;
  END LOOP;
END $$;
