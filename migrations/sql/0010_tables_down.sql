-- Reverts 0010_tables.sql and 0010_registry.sql. Tables that are watched as they are become plain tables, with the replica identity
-- that they had, as far as the role may change it.
DO $$
DECLARE
  was record;
  entries pgdoc.registry[] := ARRAY(SELECT r FROM pgdoc.registry r WHERE r.kind = 'table' AND r.until IS NULL AND pgdoc.is_bound());
BEGIN
  DELETE FROM pgdoc.registry WHERE kind = 'table';
  FOR was IN SELECT e.oid::regclass AS relation, e.former_identity FROM unnest(entries) AS e JOIN pg_class c ON c.oid = e.oid LOOP
    BEGIN
      PERFORM pgdoc.withdraw(was.relation);
      PERFORM pgdoc.restore_identity(was.relation, was.former_identity);
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING 'table % keeps REPLICA IDENTITY FULL: %', was.relation, SQLERRM;
    END;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.form_fault(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN c.relkind <> 'r' OR c.relispartition OR EXISTS (
      SELECT FROM pg_inherits WHERE inhrelid = c.oid OR inhparent = c.oid) THEN 'it is not a plain table'
    WHEN c.relpersistence <> 'p' THEN 'it is temporary or unlogged'
    WHEN (SELECT count(*) < 6 FROM pg_attribute a
          WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attnotnull AND a.attgenerated = ''
            AND (a.attname = 'id' AND a.atttypid = 'text'::regtype
              OR a.attname = 'data' AND a.atttypid = 'jsonb'::regtype
              OR a.attname IN ('version', 'replaced_version') AND a.atttypid = 'bigint'::regtype AND a.atthasdef
              OR a.attname IN ('created_at', 'updated_at') AND a.atttypid = 'timestamptz'::regtype AND a.atthasdef))
      THEN 'it needs the columns id text, data jsonb, version bigint DEFAULT 1, replaced_version bigint DEFAULT 1, '
        'created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), all of them NOT NULL'
    WHEN NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id'
                     WHERE i.indrelid = c.oid AND i.indisprimary AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
      THEN 'its primary key is not the column id'
    WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = 'v')
      THEN 'it has a virtual generated column, with which its updates would fail: declare the column STORED'
  END
  FROM pg_class c WHERE c.oid = relation
$$;

CREATE OR REPLACE FUNCTION pgdoc.is_collection(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT pgdoc.is_bound() AND EXISTS (
    SELECT FROM pgdoc.registry r
      JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = 'pgdoc_before_update' AND t.tgfoid = 'pgdoc.before_update()'::regprocedure
    WHERE r.oid = relation AND r.until IS NULL)
$$;

CREATE OR REPLACE FUNCTION pgdoc.collections(schema_name text) RETURNS SETOF text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgdoc.check_bound();
  RETURN QUERY
    SELECT c.relname::text FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = 'pgdoc_before_update' AND t.tgfoid = 'pgdoc.before_update()'::regprocedure
    WHERE r.until IS NULL AND n.nspname = collections.schema_name
    ORDER BY c.relname::text COLLATE "C";
END $$;

CREATE OR REPLACE FUNCTION pgdoc.unregister(relation regclass) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was_collection boolean := pgdoc.is_collection(relation);
BEGIN
  PERFORM pgdoc.lock_followed(relation);
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_after_insert ON %s', relation);
  EXECUTE format('DROP TRIGGER IF EXISTS pgdoc_before_update ON %s', relation);
  IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname = 'pgdoc' AND r.prrelid = relation AND pg_has_role(p.pubowner, 'USAGE')) THEN
    EXECUTE format('ALTER PUBLICATION pgdoc DROP TABLE %s', relation);
  END IF;
  PERFORM pgdoc.follow_own_ddl(relation);
  RETURN was_collection;
END $$;

CREATE OR REPLACE FUNCTION pgdoc.rebind() RETURNS text[] LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was record;
  schemas text[];
  names text[];
  relation regclass;
  fault text;
  found text[] := '{}';
BEGIN
  IF pgdoc.is_bound() THEN
    RETURN found;
  END IF;
  SELECT array_agg(schema_name ORDER BY schema_name, name), array_agg(name ORDER BY schema_name, name)
  INTO schemas, names FROM pgdoc.registry WHERE until IS NULL;
  DELETE FROM pgdoc.registry;
  DELETE FROM pgdoc.registry_commits;
  DELETE FROM pgdoc.identity;
  DELETE FROM pgdoc.published;
  INSERT INTO pgdoc.published
  SELECT oid, '', '', pg_current_wal_insert_lsn() FROM pg_publication WHERE pubname = 'pgdoc';
  IF (SELECT to_jsonb(p) ->> 'pubgencols' = 'n' FROM pg_publication p WHERE p.pubname = 'pgdoc') THEN  -- pg_upgrade to PostgreSQL 18
    EXECUTE 'ALTER PUBLICATION pgdoc SET (publish_generated_columns = stored)';
  END IF;
  FOR was IN SELECT * FROM unnest(schemas, names) AS collection(schema_name, name) LOOP
    relation := to_regclass(format('%I.%I', was.schema_name, was.name));
    fault := CASE WHEN relation IS NULL THEN 'its table does not exist' ELSE pgdoc.form_fault(relation) END;
    IF fault IS NULL THEN
      BEGIN
        PERFORM pgdoc.register(relation);
        found := found || relation::text;
      EXCEPTION WHEN insufficient_privilege OR check_violation THEN  -- one table keeps no other from being registered
        fault := SQLERRM;
      END;
    END IF;
    IF fault IS NOT NULL THEN
      RAISE WARNING 'collection %.% is not registered again: %', was.schema_name, was.name, fault;
    END IF;
  END LOOP;
  RETURN found;
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

CREATE OR REPLACE FUNCTION pgdoc.existed(in_schema text, names text[], commit_lsn pg_lsn, lsn pg_lsn)
RETURNS TABLE (name text, is_there boolean, was_there boolean) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  WITH last AS (SELECT max(at) AS at FROM pgdoc.registry_commits WHERE at < commit_lsn),
  spans AS (
    SELECT r.name, r.since, r.until,
      coalesce(opened.at, r.since) AS opened_at, coalesce(closed.at, r.until) AS closed_at
    FROM pgdoc.registry r
      LEFT JOIN pgdoc.registry_commits opened ON opened.xid = r.opened_xid AND r.since > '0/0'
      LEFT JOIN pgdoc.registry_commits closed ON closed.xid = r.closed_xid
    WHERE r.schema_name = in_schema AND r.name = ANY (names)
  )
  SELECT wanted.name, now.is_there, now.was_there
  FROM unnest(names) AS wanted(name), last, LATERAL (
    SELECT
      coalesce(bool_or(s.closed_at IS NULL OR s.closed_at >= commit_lsn), false),
      coalesce(bool_or(NOT (s.opened_at = last.at AND s.since > existed.lsn)
        AND (s.closed_at IS NULL OR s.closed_at >= commit_lsn OR s.closed_at = last.at AND s.until > existed.lsn)), false)
    FROM spans s WHERE s.name = wanted.name AND s.opened_at < commit_lsn
  ) AS now(is_there, was_there)
  WHERE NOT EXISTS (SELECT FROM pgdoc.identity WHERE messages_until > commit_lsn)
$$;

CREATE OR REPLACE FUNCTION pgdoc.exact_since(in_schema text, names text[]) RETURNS pg_lsn LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(max(coalesce(until, since)), '0/0') FROM pgdoc.registry
  WHERE NOT exact AND schema_name = in_schema AND (names IS NULL OR name = ANY (names))
$$;

CREATE OR REPLACE FUNCTION pgdoc.published_since(in_schema text, names text[]) RETURNS pg_lsn LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(max(since), '0/0') FROM pgdoc.published
  WHERE (name = '' OR schema_name = in_schema AND (names IS NULL OR name = ANY (names)))
    AND since <= pg_current_wal_insert_lsn()
$$;

DROP FUNCTION pgdoc.unpublished(text, text[]);
CREATE OR REPLACE FUNCTION pgdoc.unpublished(schema_name text) RETURNS SETOF regclass LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass
  FROM pgdoc.registry g JOIN pg_class c ON c.oid = g.oid
  WHERE g.until IS NULL AND g.schema_name = unpublished.schema_name AND g.oid NOT IN (
    SELECT r.prrelid FROM pg_publication_rel r
    WHERE r.prpubid = (SELECT oid FROM pg_publication WHERE pubname = 'pgdoc')
      AND r.oid IN (SELECT member FROM pgdoc.published))
  ORDER BY c.relname
$$;

CREATE OR REPLACE FUNCTION pgdoc.publication_fault(schema_name text, names text[] DEFAULT NULL) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN p.oid IS NULL THEN 'does not exist: run CREATE PUBLICATION pgdoc'
    WHEN NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate)
      THEN 'does not publish every kind of change: run ALTER PUBLICATION pgdoc SET (publish = ''insert, update, delete, truncate'')'
    WHEN EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL))
      THEN 'leaves out rows or columns: drop those tables from it and run SELECT pgdoc.publish(''' || schema_name || ''')'
    WHEN NOT EXISTS (SELECT FROM pgdoc.published WHERE member = p.oid)
      THEN 'was re-created: run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
    WHEN NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = 'pgdoc.registry'::regclass)
      THEN 'lacks pgdoc.registry: run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
    WHEN to_jsonb(p) ->> 'pubgencols' = 'n'
      THEN 'leaves out generated columns: run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
    ELSE (SELECT 'lacks ' || string_agg(relation::text, ', ') || ': run SELECT pgdoc.publish(''' || schema_name || ''') as its owner'
          FROM pgdoc.unpublished(schema_name) AS relation
          WHERE names IS NULL OR EXISTS (SELECT FROM pg_class c WHERE c.oid = relation AND c.relname = ANY (names)))
  END
  FROM (SELECT) AS one LEFT JOIN pg_publication p ON p.pubname = 'pgdoc'
$$;

CREATE OR REPLACE FUNCTION pgdoc.publish(schema_name text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  relation regclass;
BEGIN
  PERFORM pgdoc.check_publication_owner();
  INSERT INTO pgdoc.published SELECT oid, '', '', pg_current_wal_insert_lsn() FROM pg_publication WHERE pubname = 'pgdoc'
  ON CONFLICT (member) DO NOTHING;
  IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                 WHERE p.pubname = 'pgdoc' AND r.prrelid = 'pgdoc.registry'::regclass) THEN
    ALTER PUBLICATION pgdoc ADD TABLE pgdoc.registry;
    INSERT INTO pgdoc.published
    SELECT r.oid, '', 'pgdoc.registry', pg_current_wal_insert_lsn()
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = 'pgdoc' AND r.prrelid = 'pgdoc.registry'::regclass;
  END IF;
  IF (SELECT to_jsonb(p) ->> 'pubgencols' = 'n' FROM pg_publication p WHERE p.pubname = 'pgdoc') THEN  -- PostgreSQL 18
    EXECUTE 'ALTER PUBLICATION pgdoc SET (publish_generated_columns = stored)';
  END IF;
  FOR relation IN SELECT pgdoc.unpublished(schema_name) LOOP
    PERFORM pgdoc.publish_collection(relation);
  END LOOP;
  DELETE FROM pgdoc.published WHERE member IN (  -- rows of dropped collections that restrict nothing
    SELECT p.member FROM pgdoc.published p
    WHERE p.since = '0/0' AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.oid = p.member)
    FOR UPDATE SKIP LOCKED);
  RETURN pgdoc.publication_fault(schema_name);
END $$;

DROP FUNCTION IF EXISTS pgdoc.altered_relations(text), pgdoc.check_dropped_partitions(), pgdoc.is_partition(oid, oid), pgdoc.knows_partitions();
DROP FUNCTION pgdoc.label(text, text, text), pgdoc.registry_changes(oid[]), pgdoc.restore_identity(regclass, text), pgdoc.remove_table(regclass),
  pgdoc.withdraw(regclass), pgdoc.leave_table(regclass), pgdoc.is_added(regclass, text), pgdoc.add_table(regclass, text),
  pgdoc.is_published(oid), pgdoc.claim_registry(), pgdoc.role_fault(regclass), pgdoc.enter_table(regclass, text, text), pgdoc.check_snapshot_of(regclass),
  pgdoc.lock_patiently(regclass, text, int), pgdoc.lock_holders(regclass, text), pgdoc.check_owner_of(regclass),
  pgdoc.refuse_watching(regclass, text[]), pgdoc.tables(), pgdoc.is_table(regclass), pgdoc.publication_conflict(regclass),
  pgdoc.table_fault(regclass, text), pgdoc.table_prints(oid[]), pgdoc.table_key(regclass), pgdoc.table_columns(regclass), pgdoc.type_form(oid);

SET CONSTRAINTS pgdoc.pgdoc_order IMMEDIATE;
SET CONSTRAINTS pgdoc.pgdoc_order DEFERRED;
ALTER TABLE pgdoc.registry
  DROP COLUMN kind, DROP COLUMN key, DROP COLUMN document, DROP COLUMN columns, DROP COLUMN print, DROP COLUMN former_identity,
  DROP CONSTRAINT registry_opened_by_check,
  DROP CONSTRAINT registry_closed_by_check,
  ADD CONSTRAINT registry_opened_by_check CHECK (opened_by IN ('create', 'rename', 'move')),
  ADD CONSTRAINT registry_closed_by_check CHECK (closed_by IN ('drop', 'rename', 'move', 'unregister'));
