-- The end of the WAL, snapshots, publications, and the status of history and consumers. The statements that emit a message
-- set synchronous_commit for their own transaction: it holds no data, and must not wait for a synchronous standby.

-- name: wal_end
-- The name of a WAL file begins with the timeline. The control file has it only after the first checkpoint.
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS inserted,
  (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed,
  ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int AS timeline

-- name: now
-- On a standby, this fails as a write does, so that the store looks for the primary.
SELECT CASE WHEN pg_is_in_recovery() THEN pg_notify('pgdoc'::text, ''::text)::text::bigint
  ELSE (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint END AS inserted,
  CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint END AS flushed

-- name: awaited
-- How far a consumer has come, see `find` in consumers.sql, and whether that is a position of this database: a copy or a
-- restored dump has the rows of its original.
SELECT CASE WHEN pg_is_in_recovery() THEN pg_notify('pgdoc'::text, ''::text)::text::bigint
    ELSE (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint END AS inserted,
  CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint END AS flushed,
  c.place, c.snapshot,
  c.database_oid = d.oid AND c.system_id = (SELECT system_identifier::text FROM pg_control_system()) AS is_own
FROM pg_database d LEFT JOIN (
  SELECT greatest(c.place, p.acknowledged) AS place,
    CASE WHEN p.acknowledged > c.place THEN p.snapshot ELSE c.snapshot END AS snapshot,
    CASE WHEN p.acknowledged > c.place THEN p.system_id ELSE c.system_id END AS system_id,
    CASE WHEN p.acknowledged > c.place THEN p.database_oid ELSE c.database_oid END AS database_oid
  FROM pgdoc.consumers c LEFT JOIN pgdoc.consumer_progress p ON p.name = c.name
  WHERE c.name = %s::text
) AS c ON true
WHERE d.datname = current_database()

-- name: call
-- Asks the process that has a consumer open to store its progress, see pgdoc.consumers.calls. Not flushed: transactions
-- that send a notification commit one after the other, in the whole server.
SELECT pg_notify(%s::text, ''::text) FROM set_config('synchronous_commit', 'off', true)

-- name: timeline
SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int

-- name: flush
-- Commits a transaction, which flushes the WAL up to it. Decoders skip the prefix `pgdoc.flush`.
SELECT pg_logical_emit_message(true, 'pgdoc.flush', '') FROM set_config('synchronous_commit', 'local', true)

-- name: running
-- The snapshot shows which transactions are invisible. Those in the first array wait for a synchronous standby: they have
-- committed in the WAL, possibly long ago, but are not visible yet. Those in the second wait for their client's next
-- command, so they have not committed; for a session of another role, that is not known to everyone.
SELECT pg_current_snapshot()::text, array(
  SELECT backend_xid::text::bigint FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND wait_event = 'SyncRep'), array(
  SELECT backend_xid::text::bigint FROM pg_stat_activity
  WHERE backend_xid IS NOT NULL AND state = ANY (ARRAY['idle in transaction'::text, 'idle in transaction (aborted)'::text]))

-- name: mark
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, clock_timestamp()
FROM set_config('synchronous_commit', 'local', true),
  pg_logical_emit_message(true, 'pgdoc.snapshot', '')

-- name: part
-- The next documents of a collection by id, as one row: how many there are, and each column of the first of them as one
-- value, which saves what rows cost. Neither an id nor JSON text contains a zero byte; a text is empty if PostgreSQL can't
-- print it, and a time that is NULL is infinite. The document that passes the limit of printed bytes is the last one. The limit of stored bytes, which are known
-- without reading a large document, keeps PostgreSQL from printing many in vain. OFFSET 0 has it print each only once.
-- The message marks the WAL position that the stream must reach. Row-level security is looked at by the statement that
-- reads: a policy could hide documents, whose later changes the stream would have nevertheless.
SELECT hides_rows, pg_current_snapshot()::text, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, clock_timestamp(),
  part.found, part.ids, part.texts, part.columns
FROM set_config('synchronous_commit', 'local', true),
pg_logical_emit_message(true, 'pgdoc.snapshot', '') AS mark
CROSS JOIN row_security_active('{table}'::regclass) AS hides_rows
CROSS JOIN LATERAL (
  SELECT count(*) AS found, string_agg(textsend(id), decode('00', 'hex')) FILTER (WHERE fits) AS ids,
    string_agg(coalesce(textsend(printed), ''::bytea), decode('00', 'hex')) FILTER (WHERE fits) AS texts,
    string_agg(int8send(coalesce(version, 0)) || timestamptz_send(coalesce(created_at, 'infinity'::timestamptz))
      || timestamptz_send(coalesce(updated_at, 'infinity'::timestamptz)), ''::bytea) FILTER (WHERE fits) AS columns
  FROM (
    SELECT id, printed, version, created_at, updated_at, may_fit AND
      coalesce(sum(octet_length(printed)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING), 0)
        - coalesce(octet_length(printed), 0) < %s AS fits
    FROM (
      SELECT id, version, created_at, updated_at, may_fit, CASE WHEN may_fit THEN {text_of}(data) END AS printed
      FROM (
        SELECT id, data, version, created_at, updated_at,
          coalesce(sum(pg_column_size(data)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING), 0)
            - coalesce(pg_column_size(data), 0) < %s AS may_fit
        FROM (SELECT id COLLATE "C" AS id, data, version, created_at, updated_at FROM {table}
          WHERE {guard} AND id COLLATE "C" > %s::text ORDER BY id COLLATE "C" LIMIT %s) AS page
      ) AS measured ORDER BY id OFFSET 0
    ) AS printed
  ) AS counted
) AS part

-- name: placed
-- The documents of a find, after a row that says which transactions the statement sees, and where the WAL of which timeline
-- ends: see `part`. A column that is NULL in one half has the type that it has in the other.
SELECT hides_rows, pg_current_snapshot()::text AS seen, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS end_lsn,
  ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int AS timeline, {nulls}
FROM set_config('synchronous_commit', 'local', true),
pg_logical_emit_message(true, 'pgdoc.snapshot', '') AS mark
CROSS JOIN row_security_active('{table}'::regclass) AS hides_rows
UNION ALL
SELECT NULL, NULL, NULL, NULL, found.* FROM ({found}) AS found

-- name: watched_part
SELECT hides_rows, seen, end_lsn, read_at, key, orders, document, columns, found, ids, rows
FROM pgdoc.read_table(%s, %s, %s::text[], %s, %s)

-- name: key_orders
-- Of the table that had this name at an LSN; it may have another one now.
SELECT pgdoc.key_orders(c.oid) FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid
WHERE r.kind = 'table' AND pgdoc.label(r.kind, r.schema_name, r.name) = %s AND r.since <= %s::pg_lsn
ORDER BY r.since DESC LIMIT 1

-- name: oldest_bookmark
SELECT (min(confirmed_flush_lsn) - '0/0'::pg_lsn)::bigint AS oldest
FROM pg_replication_slots AS s
WHERE starts_with(slot_name, format('pgdocb_%%s_', (SELECT oid FROM pg_database WHERE datname = current_database())))
  AND wal_status <> 'lost'
  AND NOT (pg_is_in_recovery() AND coalesce((to_jsonb(s) ->> 'synced')::boolean, false))

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
WHERE starts_with(s.slot_name, format('pgdocb_%%s_', (SELECT oid FROM pg_database WHERE datname = current_database())))

-- name: watchable
-- The collections and watched tables that are wanted, and whether each has before images (REPLICA IDENTITY FULL).
SELECT w.name, w.is_full FROM pgdoc.watchable(%s, %s) AS w

-- name: row_security
-- Those of which a policy may hide documents from this role. As with pg_dump, the owner and roles with BYPASSRLS see all.
SELECT w.name FROM pgdoc.watchable(%s, %s) AS w
WHERE pg_catalog.row_security_active(w.relation) ORDER BY w.name

-- name: follow_tables
SELECT pgdoc.follow_tables() FROM set_config('synchronous_commit', 'local', true) WHERE NOT pgdoc.is_followed()

-- name: follows_ddl
SELECT pgdoc.follows_ddl()

-- name: existed
SELECT name, is_there, was_there FROM pgdoc.existed(%s, %s, %s::pg_lsn, %s::pg_lsn)

-- name: exact_since
SELECT (pgdoc.exact_since(%s, %s) - '0/0'::pg_lsn)::bigint AS since

-- name: publication_fault
SELECT pgdoc.publication_fault(%s, %s)

-- name: publish
SELECT pgdoc.publish(%s)

-- name: messages_published
SELECT EXISTS (
  SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
  WHERE p.pubname = 'pgdoc'::name AND r.prrelid = 'pgdoc.messages'::regclass::oid)

-- name: publish_messages
SELECT pgdoc.publish_messages()

-- name: published_since
SELECT (pgdoc.published_since(%s, %s) - '0/0'::pg_lsn)::bigint AS since

-- name: create
SELECT pgdoc.create_collection(%s, %s)

-- name: history
SELECT extract(epoch FROM history_time)::float8, history_size, kept.oldest, kept.retained, kept.bookmarks::int
FROM pgdoc.settings, (
  SELECT (min(confirmed_flush_lsn) - '0/0'::pg_lsn)::bigint AS oldest,
    ((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END) - min(restart_lsn))::bigint
      AS retained, count(*) AS bookmarks
  FROM pg_replication_slots AS s
  WHERE starts_with(slot_name, format('pgdocb_%%s_', (SELECT oid FROM pg_database WHERE datname = current_database())))
    AND wal_status <> 'lost'
    AND NOT (pg_is_in_recovery() AND coalesce((to_jsonb(s) ->> 'synced')::boolean, false))
) AS kept

-- name: blockers
-- Open write transactions of all databases. While one is open, no slot can release the WAL written since.
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age_s
FROM pg_stat_activity WHERE backend_xid IS NOT NULL
UNION ALL
SELECT NULL, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts
ORDER BY age_s DESC NULLS LAST

-- name: set_history
UPDATE pgdoc.settings
SET history_time = coalesce(%s, history_time), history_size = coalesce(%s, history_size), history_chosen = true
RETURNING true

-- name: status
SELECT current_setting('server_version'), current_database(), (SELECT version_num FROM pgdoc.alembic_version),
  (SELECT count(*) FROM pgdoc.collections(%s)), pgdoc.follows_ddl(), pgdoc.loses_values(),
  (SELECT count(*) FROM pgdoc.registry WHERE kind = 'table' AND until IS NULL), pgdoc.is_frozen('pgdoc.registry')

-- name: knows
-- A consumer whose creation was interrupted has no position; the next process creates it.
SELECT true FROM pgdoc.consumers WHERE name = %s::text AND place <> '{}'

-- name: skip
UPDATE pgdoc.unreadable
SET skipped_at = coalesce(skipped_at, clock_timestamp()), skipped_by = coalesce(skipped_by, session_user::text)
WHERE consumer = %s::text AND commit_lsn = %s::pg_lsn
RETURNING collections

-- name: consumers
-- The owner is the session of the last claim, see `owner` in consumers.sql. A consumer without one counts as waiting since
-- its last update of consumer_progress (seen_at). An owner is silent since its session last did something, or, if this role
-- may not see that, since it last renewed its lease. The slot of a consumer that shares the hub's walsender is behind what
-- it has acknowledged.
SELECT c.name, c.schema_name, owner.pid, greatest(c.place, p.acknowledged),
  CASE WHEN p.acknowledged > c.place THEN p.system_id ELSE c.system_id END,
  CASE WHEN p.acknowledged > c.place THEN p.timeline ELSE c.timeline END,
  CASE WHEN p.acknowledged > c.place THEN p.database_oid ELSE c.database_oid END,
  CASE WHEN s.confirmed_flush_lsn IS NOT NULL THEN greatest(0, least(
    pg_current_wal_flush_lsn() - s.confirmed_flush_lsn,
    pg_current_wal_flush_lsn() - '0/0'::pg_lsn - (greatest(c.place, p.acknowledged))[1]::numeric))::bigint END,
  clock_timestamp() - coalesce(
    p.waiting_since, CASE WHEN owner.pid IS NULL THEN p.seen_at ELSE clock_timestamp() END, c.created_at),
  (pg_current_wal_flush_lsn() - s.restart_lsn)::bigint, s.wal_status, c.created_at,
  CASE WHEN owner.last_seen IS NOT NULL THEN greatest(clock_timestamp() - owner.last_seen, '0'::interval) END,
  (SELECT (min(u.commit_lsn) - '0/0'::pg_lsn)::bigint FROM pgdoc.unreadable u
   WHERE u.consumer = c.name AND u.skipped_at IS NULL
     AND (u.commit_lsn - '0/0'::pg_lsn)::bigint >= (greatest(c.place, p.acknowledged))[1]),
  to_jsonb(s) ->> 'invalidation_reason',
  (SELECT greatest(c.created_at, p.seen_at, max(o.renewed_at)) FROM pgdoc.owners o WHERE o.name = c.name)
FROM pgdoc.consumers c
LEFT JOIN pgdoc.consumer_progress p ON p.name = c.name
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_replication_slots s
  ON s.slot_name = format('pgdoc_%%s_%%s', d.oid, c.name)::name
LEFT JOIN LATERAL (
  SELECT o.pid,
    CASE WHEN a.backend_start IS NULL THEN CASE WHEN o.needs_lease THEN o.renewed_at END
         WHEN a.state = 'active'::text THEN clock_timestamp()
         ELSE greatest(a.state_change, o.renewed_at) END AS last_seen
  FROM pgdoc.owners o
  JOIN pg_stat_activity a ON a.pid = o.pid AND a.datid = d.oid
  WHERE o.name = c.name
    AND (a.backend_start = o.backend_start) IS NOT FALSE
) owner ON true
ORDER BY c.name
