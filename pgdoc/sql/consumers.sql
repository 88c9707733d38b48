-- Durable consumers. The session-level advisory lock of a consumer makes its session the owner.

-- name: own
SELECT pg_try_advisory_lock(hashtextextended('pgdoc consumer ' || %s, 0)) AS owned

-- name: disown
SELECT pg_advisory_unlock_all()

-- name: owner
SELECT l.pid
FROM pg_locks l, hashtextextended('pgdoc consumer ' || %s, 0) AS key
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = key

-- name: whoami
SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()

-- name: end_session
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s

-- name: end_holders
-- The transactions that have changed a consumer's row and are still open. The row may know the one of a savepoint only,
-- whose lock is gone when that is released; so a checkpoint leaves a lock of its own.
SELECT pg_terminate_backend(l.pid)
FROM pgdoc.consumers c, hashtextextended('pgdoc checkpoint ' || c.name, 0) AS key, pg_locks l
WHERE c.name = %s AND l.granted AND l.pid <> pg_backend_pid()
  AND (l.locktype = 'transactionid' AND l.transactionid = c.xmax
    OR l.locktype = 'advisory' AND l.objsubid = 1 AND (l.classid::bigint << 32) | l.objid::bigint = key
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))

-- name: end_reader
SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s AND active

-- name: find
SELECT schema_name, epoch, greatest(place, acknowledged) AS place, system_id, timeline
FROM pgdoc.consumers WHERE name = %s

-- name: take_over
UPDATE pgdoc.consumers SET epoch = epoch + 1, seen_at = clock_timestamp() WHERE name = %s RETURNING epoch

-- name: enter
-- Its epoch is none that a consumer of this name had before it was dropped.
INSERT INTO pgdoc.consumers (name, schema_name, epoch, place, acknowledged, system_id, timeline)
VALUES (%(name)s, %(schema)s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, %(place)s, %(place)s,
  %(system)s, %(timeline)s)
RETURNING epoch

-- name: begin_anew
-- What the stream still holds can be checkpointed.
UPDATE pgdoc.consumers
SET place = least(place, %(place)s::bigint[]), acknowledged = %(place)s, system_id = %(system)s, timeline = %(timeline)s, waiting_since = NULL,
  seen_at = clock_timestamp()
WHERE name = %(name)s AND epoch = %(epoch)s
RETURNING true

-- name: look
SELECT epoch, place FROM pgdoc.consumers WHERE name = %s

-- name: save
-- Not while a checkpoint is being made: the thread that reads must not wait for a transaction of the user's.
UPDATE pgdoc.consumers
SET acknowledged = greatest(acknowledged, %(place)s::bigint[]), waiting_since = %(waiting_since)s,
  system_id = %(system)s, timeline = %(timeline)s, seen_at = clock_timestamp()
WHERE name = (SELECT name FROM pgdoc.consumers WHERE name = %(name)s AND epoch = %(epoch)s FOR UPDATE SKIP LOCKED)
RETURNING true

-- name: checkpoint
UPDATE pgdoc.consumers SET place = %s::bigint[], system_id = %s, timeline = %s
WHERE name = %s AND epoch = %s AND place < %s::bigint[]
RETURNING pg_advisory_xact_lock_shared(hashtextextended('pgdoc checkpoint ' || name, 0)) IS NOT NULL

-- name: remove
DELETE FROM pgdoc.consumers WHERE name = %s RETURNING true

-- name: slot
SELECT plugin, wal_status, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed, active_pid
FROM pg_replication_slots WHERE slot_name = %s

-- name: slot_name
SELECT format('pgdoc_%%s_%%s', oid, %s::text) AS name FROM pg_database WHERE datname = current_database()

-- name: places
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS inserted,
  (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed
