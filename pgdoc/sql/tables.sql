-- What `store.check_table` reads.

-- name: check_table
-- `row_bytes` is what the stored row takes without its header: by the statistics of ANALYZE, which count a value that is stored
-- out of line as its pointer, and the size of the table that has these values. It is NULL where ANALYZE has not run, or where
-- the role may not see a column.
SELECT format('%%I.%%I', n.nspname, c.relname) AS quoted,
  c.relkind = 'r' AS is_plain,
  pgdoc.table_fault(c.oid, %s::text) AS fault,
  pgdoc.publication_conflict(c.oid) AS conflict,
  pgdoc.role_fault(c.oid) AS role_fault,
  r.oid IS NOT NULL AS is_watched,
  r.document AS watched_document,
  c.relreplident = 'f' AS is_full,
  pgdoc.is_published(c.oid) AS is_published,
  c.relrowsecurity AS has_policies,
  EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS has_children,
  c.relispartition AS is_partition,
  EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped) AS has_generated,
  CASE WHEN c.reltuples > 0 THEN (
    SELECT CASE WHEN count(*) = (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
      THEN (sum(s.avg_width::float8 * (1 - s.null_frac::float8)) + (coalesce(pg_relation_size(stored.toast), 0)::float8 / c.reltuples::float8))::bigint END
    FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited) END AS row_bytes,
  pg_stat_get_tuples_updated(c.oid) AS updates,
  pg_stat_get_tuples_deleted(c.oid) AS deletes,
  (SELECT d.stats_reset FROM pg_stat_database d WHERE d.datname = current_database()) AS counted_since
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pgdoc.registry r ON r.oid = c.oid AND r.until IS NULL AND r.kind = 'table',
  LATERAL (SELECT CASE WHEN c.reltoastrelid::bigint > 0 THEN c.reltoastrelid::regclass END AS toast) AS stored
WHERE c.oid = to_regclass(format('%%I.%%I', %s::text, %s::text)) AND pgdoc.check_bound()::text IS NOT NULL

-- name: lock_holders
SELECT h.pid, h.role, h.held, h.since FROM pgdoc.lock_holders(to_regclass(%s::text)::regclass, %s::text) AS h
