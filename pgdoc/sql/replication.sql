-- Statements that run on replication connections. Most have no parameters, because the replication protocol has none.

-- name: preflight
-- The walsender checks session_user, the role that logged in, and ignores SET ROLE. On Amazon RDS, it also lets members of
-- rds_replication in. Where the server has effective_wal_level (PostgreSQL 19), the first logical slot turns decoding on under
-- wal_level = replica.
SELECT CASE WHEN current_setting('wal_level') = 'replica' AND current_setting('effective_wal_level', true) IS NOT NULL
    THEN 'logical' ELSE current_setting('wal_level') END AS wal_level,
  current_setting('server_encoding') AS encoding,
  current_database() AS database, pg_is_in_recovery() AS in_recovery, session_user AS role,
  (SELECT r.rolreplication OR r.rolsuper OR EXISTS (
    SELECT FROM pg_roles m JOIN pg_roles a ON a.rolname = 'rdsadmin'::name AND a.rolsuper
    WHERE m.rolname = 'rds_replication'::name AND pg_has_role(r.oid, m.oid, 'MEMBER'))
   FROM pg_roles r WHERE r.rolname = session_user) AS may_replicate,
  (SELECT count(*) FROM pg_replication_slots) AS slots,
  current_setting('max_replication_slots')::int AS max_slots,
  (SELECT count(*) FROM pg_stat_replication) AS walsenders, current_setting('max_wal_senders')::int AS max_walsenders

-- name: database
SELECT d.oid, d.datname AS name,
  ARRAY(SELECT f.system_id FROM pgdoc.former_clusters f WHERE f.is_upgrade ORDER BY f.replaced_at) AS former
FROM pg_database AS d WHERE d.datname = current_database()

-- name: standby_names
SELECT current_setting('synchronous_standby_names') AS names

-- name: is_decoding
-- A walsender in the wait state Activity (needs WAL) or Client (needs us to read) is not decoding.
SELECT coalesce(wait_event_type, '') <> ALL (ARRAY['Activity', 'Client']) FROM pg_stat_activity WHERE pid = %s

-- name: bookmarks
-- A slot that is still being copied has no confirmed_flush_lsn. The column synced exists since PostgreSQL 17. Nothing can use
-- the slots that a standby synchronizes before it is promoted.
SELECT slot_name AS name, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed, wal_status,
  (restart_lsn - '0/0'::pg_lsn)::bigint AS restart
FROM pg_replication_slots AS s
WHERE starts_with(slot_name, format('pgdocb_%s_', (SELECT oid FROM pg_database WHERE datname = current_database())))
  AND slot_name ~ '^pgdocb_[0-9]+_[0-9a-f]+_' AND confirmed_flush_lsn IS NOT NULL
  AND NOT (pg_is_in_recovery() AND coalesce((to_jsonb(s) ->> 'synced')::boolean, false))
ORDER BY confirmed_flush_lsn, slot_name

-- name: failover_bookmarks
-- The bookmarks and the slot {slot} of a hub. A standby can take a slot over (`fits`) unless its own slots need only later
-- rows of the catalog, as its feedback says. The column failover exists since PostgreSQL 17. `behind` is the WAL that advancing
-- a copy reads; a copy and the bookmark that is made of it need two slots, beside the two that are left to others.
SELECT s.slot_name::text AS name, s.slot_name = {slot} AS is_hub,
  coalesce((to_jsonb(s) ->> 'failover')::boolean, false) AS is_failover,
  coalesce(bool_or(age(s.catalog_xmin) <= age(p.catalog_xmin)), false) AS fits,
  bool_or(p.catalog_xmin IS NOT NULL) AS has_feedback, extract(epoch FROM clock_timestamp())::float8 AS now,
  (pg_current_wal_flush_lsn() - s.restart_lsn)::bigint AS behind,
  (SELECT current_setting('max_replication_slots')::bigint - count(*) FROM pg_replication_slots) > 3
    AND (SELECT history_bookmarks FROM pgdoc.settings) > 1 AS has_room
FROM pg_replication_slots s JOIN pg_replication_slots p ON p.slot_type = 'physical'
WHERE s.confirmed_flush_lsn IS NOT NULL AND s.wal_status <> 'lost' AND (s.slot_name = {slot} OR
  starts_with(s.slot_name, format('pgdocb_%s_', (SELECT oid FROM pg_database WHERE datname = current_database()))))
GROUP BY s.slot_name, s.confirmed_flush_lsn, s.restart_lsn, to_jsonb(s)
ORDER BY s.confirmed_flush_lsn, s.slot_name

-- name: next_transaction
-- An id that no earlier transaction has: those that run and those that have ended have lower ones.
SELECT pg_current_xact_id()::text AS id

-- name: have_ended
-- Whether all transactions before the one with this id have ended. Snapshots leave out those of VACUUM, which a record of the
-- running transactions names; they have a lock, as all do, which they keep until no such record names them any more.
SELECT pg_snapshot_xmin(pg_current_snapshot()) >= {before}::xid8 AND NOT EXISTS (
  SELECT FROM pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
    AND age(transactionid) > age({before}::xid8::xid)) AS have_ended

-- name: history_limits
-- See HistoryLimits. The view has the reason since PostgreSQL 17; PostgreSQL 16 says only whether recovery removed rows.
SELECT CASE WHEN bool_or(s.wal_status = 'lost' AND coalesce(to_jsonb(s) ->> 'invalidation_reason', 'wal_removed') = 'wal_removed')
    THEN current_setting('max_slot_wal_keep_size') END AS wal,
  CASE WHEN coalesce(current_setting('idle_replication_slot_timeout', true), '0') <> '0' AND (
      coalesce(bool_or(to_jsonb(s) ->> 'invalidation_reason' = 'idle_timeout'), false)
      OR current_setting('idle_replication_slot_timeout', true)::interval < (SELECT history_time FROM pgdoc.settings))
    THEN current_setting('idle_replication_slot_timeout', true) END AS idle,
  coalesce(array_agg(DISTINCT to_jsonb(s) ->> 'invalidation_reason') FILTER (WHERE s.wal_status = 'lost'
      AND to_jsonb(s) ->> 'invalidation_reason' = ANY (ARRAY['rows_removed', 'wal_level_insufficient'])),
    CASE WHEN bool_or((to_jsonb(s) ->> 'conflicting')::boolean) THEN ARRAY['rows_removed'] ELSE '{}' END) AS conflicts
FROM pg_replication_slots s
WHERE starts_with(s.slot_name, format('pgdocb_%s_', (SELECT oid FROM pg_database WHERE datname = current_database())))

-- name: blockers
-- xact_start of another role's session is NULL unless the current role may read all statistics.
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age_s, datname AS database, NULL AS gid
FROM pg_stat_activity WHERE backend_xid IS NOT NULL
UNION ALL
SELECT NULL, extract(epoch FROM clock_timestamp() - prepared)::float8, database, gid FROM pg_prepared_xacts
ORDER BY age_s DESC NULLS LAST

-- name: registering
-- Whether a transaction may have registered a collection that is not visible yet. It keeps its lock until it is visible.
SELECT EXISTS (
  SELECT FROM pg_locks
  WHERE locktype = 'relation' AND relation = 'pgdoc.registry'::regclass AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS is_registering

-- name: registry
SELECT r.oid::bigint, r.schema_name, r.name, (r.since - '0/0'::pg_lsn)::bigint AS since,
  (r.until - '0/0'::pg_lsn)::bigint AS until, r.kind, r.key::text, r.document, r.columns::text, r.partitions::text
FROM pgdoc.registry r WHERE r.schema_name = {schema} OR r.kind = 'table'

-- name: identity
SELECT pgdoc.is_bound() AS is_bound,
  coalesce((SELECT messages_until - '0/0'::pg_lsn FROM pgdoc.identity), 0)::bigint AS messages_until

-- name: wal_end
-- The LSN up to which a reader can read: a standby decodes what it has replayed.
SELECT ((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END) - '0/0'::pg_lsn)::bigint AS lsn

-- name: inserted
SELECT ((CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END) - '0/0'::pg_lsn)::bigint AS lsn

-- name: in_recovery
SELECT pg_is_in_recovery() AS in_recovery

-- name: same_database
SELECT (SELECT system_identifier FROM pg_control_system()) AS system_id, d.oid, d.datname AS name
FROM pg_database d WHERE d.datname = current_database()

-- name: log_running
-- A superuser may grant this to others.
SELECT has_function_privilege('pg_catalog.pg_log_standby_snapshot()', 'EXECUTE') AS is_allowed
FROM pg_proc WHERE proname = 'pg_log_standby_snapshot' AND pronamespace = 'pg_catalog'::regnamespace

-- name: hub_slots
-- Of the hubs that read this database, oldest first: a hub's slot is temporary, and its name has no order otherwise.
SELECT slot_name AS name FROM pg_replication_slots
WHERE starts_with(slot_name, format('pgdoch_%s_', (SELECT oid FROM pg_database WHERE datname = current_database())))
  AND temporary AND active
ORDER BY slot_name

-- name: suits_wal2json
-- Whether wal2json comes before pgoutput; `fault` is why it does although it loses values: the publication lacks tables, or
-- lacked some at the LSN from which is read.
SELECT pgdoc.follows_ddl() AND (NOT loses OR fault IS NOT NULL) AS suits_wal2json, fault
FROM pgdoc.loses_values() AS loses CROSS JOIN LATERAL (SELECT 'the publication "pgdoc" ' || CASE WHEN loses THEN coalesce(
  pgdoc.publication_fault({schema}, '{{.}}'),
  CASE WHEN pgdoc.published_since({schema}, '{{.}}') > {at} THEN 'lacked tables before its last repair' END) END) AS found(fault)

-- name: uncertain
-- Whether a transaction that has registered a table has perhaps committed, and is not visible yet; and whether it surely
-- has, and waits for a synchronous standby. See `announce_table` of the catalog.
SELECT count(*) > 0 AS is_uncertain, coalesce(bool_or(a.wait_event = 'SyncRep'), false) AS is_waiting
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = 'pgdoc.registering'::regclass AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: follow_tables
SELECT pgdoc.follow_tables() WHERE NOT pgdoc.is_followed()

-- name: situation
SELECT extract(epoch FROM history_time)::float8 AS time_s, history_size AS size, history_bookmarks AS bookmarks,
  (SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots)::int AS free_slots,
  extract(epoch FROM clock_timestamp())::float8 AS now,
  ((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END) - '0/0'::pg_lsn)::bigint AS wal_end,
  (SELECT restart_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = {slot})::bigint AS needed_from
FROM pgdoc.settings

-- name: nobody_limits
SELECT current_setting('max_slot_wal_keep_size') = '-1' AND NOT history_chosen AS nobody_limits FROM pgdoc.settings

-- name: confirmed
SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = {slot}

-- name: restart
SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = {slot}

-- name: plugin
SELECT plugin FROM pg_replication_slots WHERE slot_name = {slot}

-- name: database_oid
SELECT oid FROM pg_database WHERE datname = current_database()

-- name: bookmark_name
-- Rounds the time up to the next second, so that no bookmark claims to be older than it is.
SELECT format('pgdocb_%s_%s_', oid, to_hex(ceil(extract(epoch FROM clock_timestamp()))::bigint)) AS name
FROM pg_database WHERE datname = current_database()

-- name: enter_hub
SELECT pgdoc.enter_hub()

-- name: is_prepared
SELECT pgdoc.is_prepared() AS is_prepared

-- name: keeps_history
SELECT pgdoc.keeps_history()

-- name: leave_hub
SELECT pgdoc.leave_hub()
