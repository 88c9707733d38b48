-- What streams ask about collections and watched tables. `names` are those that a stream is on: NULL for all collections of
-- its schema, '{.}' for these and all watched tables; a table is named `schema.table`.

CREATE FUNCTION pgdoc.is_wanted(in_schema text, names text[], schema_name text, name text, is_table boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce('.' = ANY (names) AND (is_table OR schema_name = in_schema) OR CASE
    WHEN is_table THEN pgdoc.label('table', schema_name, name) = ANY (names)
    ELSE schema_name = in_schema AND (names IS NULL OR name = ANY (names))
  END, false)
$$;

CREATE FUNCTION pgdoc.watchable(in_schema text, names text[]) RETURNS TABLE (name text, relation regclass, is_full boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT found.name, c.oid::regclass, c.relreplident = 'f'
  FROM pgdoc.collections(in_schema) AS found(name) JOIN pg_class c ON c.relname = found.name
  WHERE c.relnamespace = to_regnamespace(quote_ident(in_schema)) AND pgdoc.is_wanted(in_schema, names, in_schema, found.name, false)
  UNION ALL
  SELECT pgdoc.label(r.kind, r.schema_name, r.name), c.oid::regclass, c.relreplident = 'f'
  FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid
  WHERE r.until IS NULL AND r.kind = 'table' AND pgdoc.is_wanted(in_schema, names, r.schema_name, r.name, true)
$$;
COMMENT ON FUNCTION pgdoc.watchable IS 'the present collections and watched tables that a stream is on';

CREATE FUNCTION pgdoc.loses_values() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM pgdoc.registry r, jsonb_array_elements(r.columns) AS c
    WHERE r.kind = 'table' AND c ->> 'form' = 'number' AND c ->> 'type' ~ '^(numeric|real|double precision)')
$$;
COMMENT ON FUNCTION pgdoc.loses_values IS 'whether a table is or was watched of which wal2json sends NaN and infinities as NULL';

-- See 0007_registry.sql.
CREATE OR REPLACE FUNCTION pgdoc.existed(in_schema text, names text[], commit_lsn pg_lsn, lsn pg_lsn)
RETURNS TABLE (name text, is_there boolean, was_there boolean) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  WITH last AS (SELECT max(at) AS at FROM pgdoc.registry_commits WHERE at < commit_lsn),
  spans AS (
    SELECT pgdoc.label(r.kind, r.schema_name, r.name) AS name, r.since, r.until,
      coalesce(opened.at, r.since) AS opened_at, coalesce(closed.at, r.until) AS closed_at
    FROM pgdoc.registry r
      LEFT JOIN pgdoc.registry_commits opened ON opened.xid = r.opened_xid AND r.since > '0/0'
      LEFT JOIN pgdoc.registry_commits closed ON closed.xid = r.closed_xid
    WHERE pgdoc.is_wanted(in_schema, names, r.schema_name, r.name, r.kind = 'table')
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
  WHERE NOT exact AND pgdoc.is_wanted(in_schema, names, schema_name, name, kind = 'table')
$$;

-- `published` does not tell collections from tables: a name counts as either.
CREATE OR REPLACE FUNCTION pgdoc.published_since(in_schema text, names text[]) RETURNS pg_lsn LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(max(p.since), '0/0') FROM pgdoc.published p
  WHERE (p.name = '' OR pgdoc.is_wanted(in_schema, names, p.schema_name, p.name, false)
      OR pgdoc.is_wanted(in_schema, names, p.schema_name, p.name, true))
    AND p.since <= pg_current_wal_insert_lsn()
$$;

-- The collections and watched tables that the publication lacks, or holds since an unknown LSN.
DROP FUNCTION pgdoc.unpublished(text);
CREATE FUNCTION pgdoc.unpublished(schema_name text, names text[] DEFAULT NULL) RETURNS SETOF regclass LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass
  FROM pgdoc.registry g JOIN pg_class c ON c.oid = g.oid
  WHERE g.until IS NULL AND NOT pgdoc.is_published(g.oid)
    AND pgdoc.is_wanted(unpublished.schema_name, names, g.schema_name, g.name, g.kind = 'table')
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
          FROM pgdoc.unpublished(schema_name, names) AS relation)
  END
  FROM (SELECT) AS one LEFT JOIN pg_publication p ON p.pubname = 'pgdoc'
$$;

-- Of all watched tables, too: there is no schema that they are in.
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
  FOR relation IN
    SELECT pgdoc.unpublished(schema_name, '{.}')
  LOOP
    BEGIN
      PERFORM pgdoc.publish_collection(relation);
    EXCEPTION WHEN insufficient_privilege THEN
      IF pgdoc.is_collection(relation) THEN  -- nobody needs a table to watch collections
        RAISE;
      END IF;
    END;
  END LOOP;
  DELETE FROM pgdoc.published WHERE member IN (  -- rows of dropped collections that restrict nothing
    SELECT p.member FROM pgdoc.published p
    WHERE p.since = '0/0' AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.oid = p.member)
    FOR UPDATE SKIP LOCKED);
  RETURN pgdoc.publication_fault(schema_name);
END $$;

-- A reader through wal2json asks for tables by name, so it has to know of a table that was registered before it began. The
-- lock tells it that a transaction may have done so and is not visible yet: see `uncertain` of replication.sql. Nothing else
-- takes a lock of this mode on it, so that no other transaction waits for one that changes a watched table.
CREATE TABLE pgdoc.registering ();
COMMENT ON TABLE pgdoc.registering IS 'locked by the transactions that register a table, or a new shape of one';

CREATE FUNCTION pgdoc.announce_table() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  LOCK TABLE pgdoc.registering IN ROW EXCLUSIVE MODE;
  RETURN NEW;
END $$;
CREATE TRIGGER pgdoc_announce BEFORE INSERT ON pgdoc.registry FOR EACH ROW WHEN (NEW.kind = 'table') EXECUTE FUNCTION pgdoc.announce_table();
