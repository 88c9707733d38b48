-- What `pgdoc metrics` asks at each scrape. It reads views of the server and a row for each consumer: no document, and no WAL.

-- name: limits
-- For this transaction only: behind a pooler, other clients use the session, too.
SELECT set_config('statement_timeout', '2s', true) AS statement_s, set_config('lock_timeout', '1s', true) AS lock_s,
  set_config('jit', 'off', true) AS jit

-- name: server
-- The oldest write transaction is NULL if there is none, or if the role may not see when others began.
SELECT pg_is_in_recovery() AS in_recovery, pg_has_role('pg_read_all_stats', 'USAGE') AS sees_sessions,
  session_user::text AS role, current_database()::text AS database,
  current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots) AS free_slots,
  current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication) AS free_walsenders,
  pg_size_bytes(current_setting('max_slot_wal_keep_size')) AS max_keep_bytes,
  (SELECT extract(epoch FROM max(clock_timestamp() - open.since))::float8
   FROM (SELECT xact_start AS since FROM pg_stat_activity WHERE backend_xid IS NOT NULL
         UNION ALL
         SELECT prepared FROM pg_prepared_xacts) AS open) AS oldest_s

-- name: slots
-- All slots of the server: others than pgdoc's use the same disk, and nothing is told of them but how much. A slot that is
-- invalid holds back nothing, whatever its restart_lsn says. Columns that older servers lack are read from the row as JSON.
SELECT found.kind,
  CASE WHEN found.kind = 'consumer' THEN substr(s.slot_name::text, length(format('pgdoc_%s_', d.oid)) + 1) END AS name,
  CASE WHEN found.kind = 'bookmark' THEN split_part(s.slot_name::text, '_', 3) END AS made_at,
  CASE WHEN s.wal_status = 'lost' THEN 0 ELSE greatest(0, wal.lsn - s.restart_lsn) END::bigint AS retained_bytes,
  s.safe_wal_size AS safe_bytes, CASE WHEN s.wal_status <> 'lost' THEN age(s.catalog_xmin) END AS catalog_xmin_age,
  CASE WHEN s.wal_status = 'lost' THEN coalesce(s.row ->> 'invalidation_reason', 'lost')
       WHEN (s.row ->> 'conflicting')::boolean THEN 'conflicting' ELSE 'none' END AS reason,
  (s.row ->> 'failover')::boolean AS is_failover,
  ((s.row ->> 'synced')::boolean AND NOT s.temporary) AS is_synced,
  (s.confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed,
  extract(epoch FROM clock_timestamp())::float8 AS now, pg_is_in_recovery() AS in_recovery
FROM (SELECT slots.*, to_jsonb(slots) AS row FROM pg_replication_slots AS slots) AS s
  CROSS JOIN (SELECT oid, datname FROM pg_database WHERE datname = current_database()) AS d
  CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END) AS wal(lsn)
  CROSS JOIN LATERAL (SELECT CASE
      WHEN (s.database = d.datname) IS NOT TRUE THEN 'other'
      WHEN starts_with(s.slot_name::text, format('pgdoc_%s_', d.oid)) THEN 'consumer'
      WHEN starts_with(s.slot_name::text, format('pgdocb_%s_', d.oid)) AND s.slot_name ~ '^pgdocb_[0-9]+_[0-9a-f]+_' THEN 'bookmark'
      WHEN s.slot_name ~ '^pgdoc[a-z]_' AND s.temporary THEN 'reader'
      ELSE 'other' END) AS found(kind)

-- name: consumers
-- As `consumers` of streams.sql, which says who the owner is. Where this role may not see when a session began, a claim with
-- a lease counts until that ends.
SELECT c.name, c.schema_name AS schema, c.recreated, c.unreadable, owner.pid IS NOT NULL AS is_owned,
  greatest(0, extract(epoch FROM clock_timestamp() - coalesce(
    c.waiting_since, CASE WHEN owner.pid IS NULL THEN c.seen_at ELSE clock_timestamp() END, c.created_at)))::float8
    AS oldest_unacked_s,
  CASE WHEN owner.last_seen IS NOT NULL THEN greatest(0, extract(epoch FROM clock_timestamp() - owner.last_seen)) END::float8
    AS owner_silent_s,
  s.slot_name IS NOT NULL AS has_slot, pg_is_in_recovery() AS in_recovery,
  greatest(0, least(wal.lsn - s.confirmed_flush_lsn, wal.lsn - '0/0'::pg_lsn - c.place_lsn))::bigint AS lag_bytes
FROM pgdoc.consumer_metrics() AS c
  CROSS JOIN (SELECT oid FROM pg_database WHERE datname = current_database()) AS d
  CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END) AS wal(lsn)
  LEFT JOIN pg_replication_slots s ON s.slot_name = format('pgdoc_%s_%s', d.oid, c.name)::name
  LEFT JOIN LATERAL (
    SELECT a.pid, CASE
      WHEN a.backend_start IS NULL THEN CASE WHEN c.needs_lease THEN c.renewed_at END
      WHEN a.state = 'active'::text THEN clock_timestamp()
      ELSE greatest(a.state_change, c.renewed_at) END AS last_seen
    FROM pg_stat_activity a
    WHERE a.pid = c.owner_pid AND a.datid = d.oid
      AND CASE WHEN a.backend_start IS NULL THEN NOT c.needs_lease OR clock_timestamp() <= (c.renewed_at + c.ttl)
               ELSE (a.backend_start = c.owner_start) IS NOT FALSE END
  ) AS owner ON true
ORDER BY c.name

-- name: dead_letters
SELECT coalesce(d.schema_name, '') AS schema, d.consumer, d.handler, d.state, d.letters,
  greatest(0, extract(epoch FROM clock_timestamp() - d.oldest))::float8 AS oldest_s
FROM pgdoc.dead_letter_metrics() AS d
ORDER BY d.consumer, d.handler, d.state
