-- Durable consumers. The session that holds a consumer's advisory lock is its owner.

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
-- Ends the sessions whose open transactions changed the consumer's row. The row's xmax may be the id of a subtransaction,
-- whose lock disappears when its savepoint is released. So a checkpoint also takes an advisory lock until it commits.
SELECT pg_terminate_backend(l.pid)
FROM pgdoc.consumers c, hashtextextended('pgdoc checkpoint ' || c.name, 0) AS key, pg_locks l
WHERE c.name = %s AND l.granted AND l.pid <> pg_backend_pid()
  AND (l.locktype = 'transactionid' AND l.transactionid = c.xmax
    OR l.locktype = 'advisory' AND l.objsubid = 1 AND (l.classid::bigint << 32) | l.objid::bigint = key
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))

-- name: end_reader
SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s AND active

-- name: find
SELECT schema_name, epoch, greatest(c.place, p.acknowledged) AS place,
  CASE WHEN p.acknowledged > c.place THEN p.snapshot ELSE c.snapshot END AS snapshot,
  CASE WHEN p.acknowledged > c.place THEN p.system_id ELSE c.system_id END AS system_id,
  CASE WHEN p.acknowledged > c.place THEN p.timeline ELSE c.timeline END AS timeline
FROM pgdoc.consumers c LEFT JOIN pgdoc.consumer_progress p USING (name)
WHERE name = %s

-- name: take_over
UPDATE pgdoc.consumers SET epoch = epoch + 1 WHERE name = %s RETURNING epoch

-- name: enter
-- An empty place means that creation has not finished; a row left by an interrupted creation is taken over. The epoch
-- starts at the clock, so it is higher than any that a dropped consumer of the same name had.
INSERT INTO pgdoc.consumers AS c (name, schema_name, epoch, place, system_id, timeline)
VALUES (%(name)s, %(schema)s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, '{}', %(system)s, %(timeline)s)
ON CONFLICT (name) DO UPDATE
SET schema_name = excluded.schema_name, epoch = greatest(c.epoch + 1, excluded.epoch)
WHERE c.place = '{}'
RETURNING epoch

-- name: settle
WITH progress AS (
  INSERT INTO pgdoc.consumer_progress (name, acknowledged, snapshot, system_id, timeline)
  SELECT name, %(place)s, %(snapshot)s, %(system)s, %(timeline)s
  FROM pgdoc.consumers WHERE name = %(name)s AND epoch = %(epoch)s
)
UPDATE pgdoc.consumers SET place = %(place)s, snapshot = %(snapshot)s, system_id = %(system)s, timeline = %(timeline)s
WHERE name = %(name)s AND epoch = %(epoch)s
RETURNING true

-- name: advance
SELECT pg_replication_slot_advance(slot_name, %(to)s::pg_lsn)
FROM pg_replication_slots
WHERE slot_name = %(slot)s AND NOT active AND wal_status <> 'lost' AND confirmed_flush_lsn < %(to)s::pg_lsn

-- name: begin_anew
-- The stored place can only move back, so that events the stream still holds can be checkpointed.
WITH progress AS (
  UPDATE pgdoc.consumer_progress
  SET acknowledged = %(place)s, snapshot = %(snapshot)s, system_id = %(system)s, timeline = %(timeline)s,
    waiting_since = NULL, seen_at = clock_timestamp()
  WHERE name = (SELECT name FROM pgdoc.consumers WHERE name = %(name)s AND epoch = %(epoch)s)
)
UPDATE pgdoc.consumers
SET place = least(place, %(place)s::bigint[]), snapshot = %(snapshot)s, system_id = %(system)s, timeline = %(timeline)s
WHERE name = %(name)s AND epoch = %(epoch)s
RETURNING true

-- name: look
SELECT epoch, place, snapshot, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS inserted
FROM pgdoc.consumers WHERE name = %s

-- name: save
INSERT INTO pgdoc.consumer_progress AS p (name, acknowledged, snapshot, system_id, timeline, waiting_since)
SELECT name, %(place)s::bigint[], %(snapshot)s, %(system)s, %(timeline)s, %(waiting_since)s::timestamptz
FROM pgdoc.consumers WHERE name = %(name)s AND epoch = %(epoch)s
ON CONFLICT (name) DO UPDATE
SET acknowledged = greatest(p.acknowledged, excluded.acknowledged), system_id = excluded.system_id,
  snapshot = CASE WHEN p.acknowledged > excluded.acknowledged THEN p.snapshot ELSE excluded.snapshot END,
  timeline = excluded.timeline, waiting_since = excluded.waiting_since, seen_at = clock_timestamp()
RETURNING true

-- name: checkpoint
UPDATE pgdoc.consumers SET place = %s::bigint[], snapshot = %s, system_id = %s, timeline = %s
WHERE name = %s AND epoch = %s AND place < %s::bigint[]
RETURNING pg_advisory_xact_lock_shared(hashtextextended('pgdoc checkpoint ' || name, 0)) IS NOT NULL

-- name: remove
DELETE FROM pgdoc.consumers WHERE name = %s RETURNING true

-- name: slot
SELECT plugin, wal_status, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed, active_pid
FROM pg_replication_slots WHERE slot_name = %s

-- name: published_since
SELECT (pgdoc.published_since(%s, '{}') - '0/0'::pg_lsn)::bigint AS since

-- name: exact_since
SELECT (pgdoc.exact_since(%s, NULL) - '0/0'::pg_lsn)::bigint AS since

-- name: existed
SELECT name, is_there, was_there FROM pgdoc.existed(%s, %s, %s::pg_lsn, %s::pg_lsn)

-- name: slot_name
SELECT format('pgdoc_%%s_%%s', oid, %s::text) AS name FROM pg_database WHERE datname = current_database()

-- name: places
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS inserted,
  (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed
