-- Statements that run on replication connections. Most have no parameters, because the replication protocol has none.

-- name: preflight
-- The walsender checks session_user, the role that logged in, and ignores SET ROLE.
SELECT current_setting('wal_level') AS wal_level, current_setting('server_encoding') AS encoding,
  current_database() AS database, pg_is_in_recovery() AS in_recovery, session_user AS role,
  (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = session_user) AS may_replicate,
  (SELECT count(*) FROM pg_replication_slots) AS slots,
  current_setting('max_replication_slots')::int AS max_slots,
  (SELECT count(*) FROM pg_stat_replication) AS walsenders, current_setting('max_wal_senders')::int AS max_walsenders

-- name: is_decoding
-- A walsender in the wait state Activity (needs WAL) or Client (needs us to read) is not decoding.
SELECT coalesce(wait_event_type, '') NOT IN ('Activity', 'Client') FROM pg_stat_activity WHERE pid = %s

-- name: bookmarks
-- A slot that is still being copied has no confirmed_flush_lsn.
SELECT slot_name AS name, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed, wal_status,
  (restart_lsn - '0/0'::pg_lsn)::bigint AS restart
FROM pg_replication_slots
WHERE slot_name LIKE format('pgdocb\_%s\_%%', (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND slot_name ~ '^pgdocb_[0-9]+_[0-9a-f]+_' AND confirmed_flush_lsn IS NOT NULL
ORDER BY confirmed_flush_lsn, slot_name

-- name: blockers
-- xact_start of another role's session is NULL unless the current role may read all statistics.
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age_s, datname AS database, NULL AS gid
FROM pg_stat_activity WHERE backend_xid IS NOT NULL
UNION ALL
SELECT NULL, extract(epoch FROM clock_timestamp() - prepared)::float8, database, gid FROM pg_prepared_xacts
ORDER BY age_s DESC NULLS LAST

-- name: tables
SELECT c.relname AS name, count(*) FILTER (
  WHERE a.attname IN ('id', 'data', 'version', 'replaced_version', 'created_at', 'updated_at')) = 6 AS is_collection
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})
GROUP BY c.relname

-- name: situation
SELECT extract(epoch FROM history_time)::float8 AS time_s, history_size AS size, history_bookmarks AS bookmarks,
  (SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots)::int AS free_slots,
  extract(epoch FROM clock_timestamp())::float8 AS now,
  (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS wal_end,
  (SELECT restart_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = {slot})::bigint AS needed_from
FROM pgdoc.settings

-- name: nobody_limits
SELECT current_setting('max_slot_wal_keep_size') = '-1' AND NOT history_chosen AS nobody_limits FROM pgdoc.settings

-- name: bookmark_name
-- Rounds the time up to the next second, so that no bookmark claims to be older than it is.
SELECT format('pgdocb_%s_%s_', oid, to_hex(ceil(extract(epoch FROM clock_timestamp()))::bigint)) AS name
FROM pg_database WHERE datname = current_database()

-- name: enter_hub
SELECT pgdoc.enter_hub()

-- name: keeps_history
SELECT pgdoc.keeps_history()

-- name: leave_hub
SELECT pgdoc.leave_hub()
