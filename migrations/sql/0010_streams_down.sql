-- Reverts 0010_streams.sql.
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

CREATE OR REPLACE FUNCTION pgdoc.published_since(in_schema text, names text[]) RETURNS pg_lsn LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(max(since), '0/0') FROM pgdoc.published
  WHERE (name = '' OR schema_name = in_schema AND (names IS NULL OR name = ANY (names)))
    AND since <= pg_current_wal_insert_lsn()
$$;

DROP FUNCTION pgdoc.loses_values(), pgdoc.watchable(text, text[]), pgdoc.is_published(oid), pgdoc.is_wanted(text, text[], text, text, boolean);
