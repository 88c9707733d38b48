-- Statements of the replication room. None takes parameters: the replication protocol has none.

-- name: preflight
SELECT current_setting('server_version_num')::int AS version, current_setting('wal_level') AS wal_level,
  current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS in_recovery, current_user AS role,
  (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may_replicate,
  current_database() AS database

-- name: bookmarks
SELECT slot_name AS name, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed, wal_status,
  (restart_lsn - '0/0'::pg_lsn)::bigint AS restart
FROM pg_replication_slots
WHERE slot_name LIKE format('pgdocb\_%s\_%%', (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY confirmed_flush_lsn

-- name: blockers
SELECT pid, round(extract(epoch FROM clock_timestamp() - xact_start))::int AS age_s, datname AS database
FROM pg_stat_activity WHERE backend_xid IS NOT NULL
UNION ALL
SELECT NULL, round(extract(epoch FROM clock_timestamp() - prepared))::int, database FROM pg_prepared_xacts
ORDER BY age_s DESC

-- name: tables
SELECT c.relname AS name, count(*) FILTER (
  WHERE a.attname IN ('id', 'data', 'version', 'replaced_version', 'created_at', 'updated_at')) = 6 AS is_collection
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})
GROUP BY c.relname

-- name: settings
SELECT extract(epoch FROM history_time)::float8 AS time_s, history_size AS size, history_bookmarks AS bookmarks,
  history_chosen AS chosen,
  (SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots)::int AS free_slots,
  (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS wal_end
FROM pgdoc.settings

-- name: other_hubs
SELECT count(*) AS hubs FROM pg_replication_slots
WHERE slot_name LIKE format('pgdoch\_%s\_%%', (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND active
