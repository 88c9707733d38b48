-- Durable consumers. The process whose claim stands in pgdoc.owners owns the consumer; see pgdoc.consumers.ownership.

-- name: whoami
-- The name of a WAL file begins with the timeline. The control file has it only after the first checkpoint.
SELECT pid, backend_start, (SELECT system_identifier FROM pg_control_system()) AS system_id,
  ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int AS timeline
FROM pg_stat_activity WHERE pid = pg_backend_pid()

-- name: lock_claim
SELECT true FROM pgdoc.owners WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s FOR UPDATE

-- name: owner
-- Whether the session of the last claim is open. The role may be unable to tell: another role's backend_start is hidden
-- without pg_read_all_stats. The claim is then a lease, by the server's clock; a clock that went back ends it, too.
-- Nor does idle_session_timeout end a session that can't send: any role can send notifications to an owner that is paused.
SELECT o.pid, o.holder, o.renewed_at,
  CASE WHEN a.pid IS NULL OR a.backend_start <> o.backend_start THEN 'gone'
       WHEN a.state = 'idle' AND a.wait_event = 'ClientWrite' AND clock_timestamp() > (a.state_change + o.ttl) THEN 'overdue'
       WHEN a.backend_start = o.backend_start THEN 'open'
       WHEN NOT o.needs_lease THEN 'hidden'
       WHEN clock_timestamp() >= o.renewed_at AND clock_timestamp() <= (o.renewed_at + o.ttl) THEN 'open'
       ELSE 'expired' END AS state
FROM pgdoc.owners o
LEFT JOIN pg_stat_activity a ON a.pid = o.pid AND a.datid = (
  SELECT oid FROM pg_database WHERE datname = current_database())
WHERE o.name = %s

-- name: end_overdue
SELECT pg_terminate_backend(o.pid, 5000)
FROM pgdoc.owners o JOIN pg_stat_activity a ON a.pid = o.pid AND a.backend_start = o.backend_start
WHERE o.name = %(name)s AND o.holder = %(seen_holder)s AND a.state = 'idle' AND a.wait_event = 'ClientWrite'

-- name: ask_for_lease
UPDATE pgdoc.owners SET needs_lease = true, renewed_at = clock_timestamp()
WHERE name = %(name)s AND holder = %(seen_holder)s AND NOT needs_lease

-- name: claim
-- Takes the place of the claim that was seen, and of no other. The epoch starts at the clock, so it is higher than any that
-- a dropped consumer of the same name had; a restored row of pgdoc.consumers may have a higher one.
INSERT INTO pgdoc.owners AS o (name, epoch, holder, pid, backend_start, renewed_at, ttl, needs_lease)
SELECT %(name)s,
  greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    (SELECT c.epoch + 1 FROM pgdoc.consumers c WHERE c.name = %(name)s)),
  gen_random_uuid(), %(pid)s::integer, %(began)s::timestamptz, clock_timestamp(), %(ttl)s::interval, %(began)s::timestamptz IS NULL
ON CONFLICT (name) DO UPDATE
SET epoch = greatest(o.epoch + 1, excluded.epoch), holder = excluded.holder, pid = excluded.pid,
  backend_start = excluded.backend_start, renewed_at = excluded.renewed_at, ttl = excluded.ttl,
  needs_lease = excluded.needs_lease
WHERE o.holder = %(seen_holder)s AND o.renewed_at = %(seen_at)s AND coalesce(o.pid, 0) = coalesce(%(seen_pid)s, 0)
RETURNING o.epoch, o.holder

-- name: come_back
UPDATE pgdoc.owners
SET pid = %(pid)s, backend_start = %(began)s::timestamptz, renewed_at = clock_timestamp(), ttl = %(ttl)s,
  needs_lease = needs_lease OR %(began)s::timestamptz IS NULL
WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s
RETURNING true

-- name: renew
UPDATE pgdoc.owners SET renewed_at = clock_timestamp(), ttl = %(ttl)s
WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s
RETURNING set_config('idle_session_timeout', %(timeout)s, false)

-- name: release
-- The row keeps the epoch for the next claim, unless the consumer is gone.
WITH dropped AS (
  DELETE FROM pgdoc.owners o
  WHERE o.name = %(name)s AND o.epoch = %(epoch)s AND o.holder = %(holder)s
    AND NOT EXISTS (SELECT FROM pgdoc.consumers c WHERE c.name = o.name)
)
UPDATE pgdoc.owners o SET pid = NULL, backend_start = NULL, renewed_at = clock_timestamp()
WHERE o.name = %(name)s AND o.epoch = %(epoch)s AND o.holder = %(holder)s
  AND EXISTS (SELECT FROM pgdoc.consumers c WHERE c.name = o.name)

-- name: take_over
-- Waits for a transaction that holds a checkpoint of a former owner; see pgdoc.consumers.fence.
UPDATE pgdoc.consumers SET epoch = %(epoch)s, holder = %(holder)s
WHERE name = %(name)s AND (epoch < %(epoch)s OR epoch = %(epoch)s AND holder = %(holder)s)
RETURNING true

-- name: end_blockers
-- Ends the transactions for whose row lock a takeover waits, while its claim stands.
SELECT blocker.pid, pg_terminate_backend(blocker.pid)
FROM unnest(pg_blocking_pids(%(waiter)s)) AS blocker(pid)
WHERE blocker.pid > 0
  AND EXISTS (SELECT FROM pg_locks
              WHERE pid = %(waiter)s AND NOT granted AND locktype = ANY (ARRAY['transactionid', 'tuple']))
  AND EXISTS (SELECT FROM pgdoc.owners WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s)

-- name: end_blockers_of_group
-- The same for a handler of a group, whose claim stands beside a log: a later one in the row is that of another process.
SELECT blocker.pid, pg_terminate_backend(blocker.pid)
FROM unnest(pg_blocking_pids(%(waiter)s)) AS blocker(pid)
WHERE blocker.pid > 0
  AND EXISTS (SELECT FROM pg_locks
              WHERE pid = %(waiter)s AND NOT granted AND locktype = ANY (ARRAY['transactionid', 'tuple']))
  AND EXISTS (SELECT FROM pgdoc.handlers WHERE consumer = %(name)s AND handler = %(handler)s AND epoch < %(epoch)s)

-- name: end_reader
SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
WHERE slot_name = %s AND active

-- name: end_reader_with
SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
WHERE slot_name = %s AND active_pid = %s

-- name: is_read_by
SELECT true FROM pg_replication_slots WHERE slot_name = %s AND active_pid = %s

-- name: find
SELECT c.schema_name, c.holder, greatest(c.place, p.acknowledged) AS place,
  CASE WHEN p.acknowledged > c.place THEN p.snapshot ELSE c.snapshot END AS snapshot,
  CASE WHEN p.acknowledged > c.place THEN p.system_id ELSE c.system_id END AS system_id,
  CASE WHEN p.acknowledged > c.place THEN p.timeline ELSE c.timeline END AS timeline,
  CASE WHEN p.acknowledged > c.place THEN p.database_oid ELSE c.database_oid END AS database_oid
FROM pgdoc.consumers c LEFT JOIN pgdoc.consumer_progress p ON p.name = c.name
WHERE c.name = %s

-- name: enter
-- An empty place means that creation has not finished; a row left by an interrupted creation is taken over.
INSERT INTO pgdoc.consumers AS c (name, schema_name, epoch, holder, place, system_id, timeline, database_oid)
VALUES (%(name)s, %(schema)s, %(epoch)s, %(holder)s, '{}', %(system)s, %(timeline)s, %(database)s)
ON CONFLICT (name) DO UPDATE
SET schema_name = excluded.schema_name, epoch = excluded.epoch, holder = excluded.holder
WHERE c.place = '{}' AND (c.epoch < excluded.epoch OR c.epoch = excluded.epoch AND c.holder = excluded.holder)
RETURNING true

-- name: settle
WITH progress AS (
  INSERT INTO pgdoc.consumer_progress (name, acknowledged, snapshot, system_id, timeline, database_oid)
  SELECT name, %(place)s, %(snapshot)s, %(system)s, %(timeline)s, %(database)s
  FROM pgdoc.consumers WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s
)
UPDATE pgdoc.consumers
SET place = %(place)s, snapshot = %(snapshot)s, system_id = %(system)s, timeline = %(timeline)s, database_oid = %(database)s
WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s
RETURNING true

-- name: advance
-- The row lock keeps another process from claiming the consumer while this waits.
WITH owned AS MATERIALIZED (
  SELECT true FROM pgdoc.owners WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s FOR UPDATE
)
SELECT pg_replication_slot_advance(slot_name, %(to)s::pg_lsn)
FROM owned, pg_replication_slots
WHERE slot_name = %(slot)s AND NOT active AND wal_status <> 'lost' AND confirmed_flush_lsn < %(to)s::pg_lsn

-- name: begin_anew
-- The stored place can only move back, so that events the stream still holds can be checkpointed.
WITH progress AS (
  UPDATE pgdoc.consumer_progress
  SET acknowledged = %(place)s, snapshot = %(snapshot)s, system_id = %(system)s, timeline = %(timeline)s,
    database_oid = %(database)s, waiting_since = NULL, seen_at = clock_timestamp()
  WHERE name = (SELECT name FROM pgdoc.consumers WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s)
)
UPDATE pgdoc.consumers
SET place = least(place, %(place)s::bigint[]), snapshot = %(snapshot)s, system_id = %(system)s, timeline = %(timeline)s,
  database_oid = %(database)s, recreated = recreated + 1
WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s
RETURNING true

-- name: look
-- A claim is renewed once an hour even where no lease depends on it, so that `was_unused` can tell.
-- `standbys_have` is the LSN up to which the standbys with a physical slot have flushed the WAL; NULL if there is none, or
-- if the consumer's slot is about to lose its WAL. A slot without a standby that holds back much is not waited for.
SELECT c.epoch, c.holder, c.place, c.snapshot,
  o.needs_lease OR clock_timestamp() - o.renewed_at > '1 hour'::interval AS needs_renewal,
  (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS inserted,
  (SELECT min(s.restart_lsn) - '0/0'::pg_lsn FROM pg_replication_slots s
   WHERE s.slot_type = 'physical' AND (s.wal_status = 'reserved' OR s.active AND s.wal_status = 'extended')
     AND NOT EXISTS (SELECT FROM pg_replication_slots own WHERE own.slot_name = %s AND own.wal_status = 'unreserved')
  )::bigint AS standbys_have
FROM pgdoc.consumers c LEFT JOIN pgdoc.owners o ON o.name = c.name
WHERE c.name = %s

-- name: save
-- Renews the claim with the same write. Its row lock orders the write against the next claim.
WITH renewed AS (
  UPDATE pgdoc.owners SET renewed_at = clock_timestamp()
  WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s
  RETURNING name
)
INSERT INTO pgdoc.consumer_progress AS p (name, acknowledged, snapshot, system_id, timeline, database_oid, waiting_since)
SELECT c.name, %(place)s::bigint[], %(snapshot)s, %(system)s, %(timeline)s, %(database)s, %(waiting_since)s::timestamptz
FROM renewed JOIN pgdoc.consumers c ON c.name = renewed.name
WHERE c.epoch = %(epoch)s AND c.holder = %(holder)s
ON CONFLICT (name) DO UPDATE
SET acknowledged = greatest(p.acknowledged, excluded.acknowledged), system_id = excluded.system_id,
  snapshot = CASE WHEN p.acknowledged > excluded.acknowledged THEN p.snapshot ELSE excluded.snapshot END,
  timeline = excluded.timeline, database_oid = excluded.database_oid, waiting_since = excluded.waiting_since,
  seen_at = clock_timestamp()
RETURNING true

-- name: checkpoint
-- Runs in the user's transaction, under the user's search_path. An event of another timeline may not exist on this one, and
-- a checkpoint that a failover undid must not be passed over.
UPDATE pgdoc.consumers SET place = %s::bigint[], snapshot = %s, system_id = %s, timeline = %s, database_oid = %s
WHERE name = %s::text AND epoch = %s::bigint AND holder = %s::uuid AND place < %s::bigint[]
  AND place >= %s::bigint[]
  AND ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int = %s::integer
RETURNING true

-- name: stored
-- Runs in the user's transaction, as `checkpoint` does.
SELECT epoch, holder, place, ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
FROM pgdoc.consumers WHERE name = %s::text

-- name: note_unreadable
-- A consumer passes no more than an operator has seen: an empty `collections` stands for any. What is passed is counted
-- from the first time that the consumer goes on without it.
INSERT INTO pgdoc.unreadable AS u (consumer, commit_lsn, lsn, xid, collections, problem)
SELECT name, %(commit_lsn)s::pg_lsn, %(lsn)s::pg_lsn, %(xid)s::bigint, %(collections)s::text[], %(problem)s::text
FROM pgdoc.consumers WHERE name = %(name)s AND epoch = %(epoch)s AND holder = %(holder)s
ON CONFLICT (consumer, commit_lsn) DO UPDATE
SET (lsn, collections, problem, skipped_at, skipped_by, passed_at) = (
  SELECT excluded.lsn, CASE WHEN seen THEN u.collections ELSE excluded.collections END, excluded.problem,
    CASE WHEN seen THEN u.skipped_at END, CASE WHEN seen THEN u.skipped_by END,
    CASE WHEN seen THEN coalesce(u.passed_at, clock_timestamp()) END
  FROM (SELECT u.skipped_at IS NOT NULL AND (
    u.collections = '{}' OR excluded.collections <> '{}' AND excluded.collections <@ u.collections) AS seen) AS told)
RETURNING u.skipped_at IS NOT NULL AS is_skipped

-- name: was_unused
-- `last`: when the claim before this one was last renewed. A consumer that does not exist was not in use.
SELECT true WHERE NOT EXISTS (
  SELECT FROM pgdoc.consumers c LEFT JOIN pgdoc.consumer_progress p ON p.name = c.name
  WHERE c.name = %(name)s
    AND clock_timestamp() - greatest(c.created_at, p.seen_at, %(last)s::timestamptz) < %(span)s::interval)

-- name: remove
DELETE FROM pgdoc.consumers WHERE name = %s RETURNING true

-- name: slot
-- The columns failover and invalidation_reason exist since PostgreSQL 17.
SELECT plugin, wal_status, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed, active_pid,
  coalesce((SELECT setting <> '0'::text FROM pg_settings WHERE name = 'idle_replication_slot_timeout'::text), false)
    AS ends_idle,
  coalesce((to_jsonb(s) ->> 'failover')::boolean, false) AS is_failover,
  coalesce(current_setting('synchronized_standby_slots', true) <> '', false) AS is_held_back,
  EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical') AS has_standby,
  to_jsonb(s) ->> 'invalidation_reason' AS reason
FROM pg_replication_slots AS s WHERE slot_name = %s

-- name: published_since
SELECT (pgdoc.published_since(%s, %s) - '0/0'::pg_lsn)::bigint AS since

-- name: loses_values
SELECT pgdoc.loses_values()

-- name: exact_since
SELECT (pgdoc.exact_since(%s, %s) - '0/0'::pg_lsn)::bigint AS since

-- name: needs_pgoutput
-- wal2json sends NaN and the infinities of these types as NULL.
SELECT pgdoc.publication_fault(%s, %s) IS NULL AND pgdoc.published_since(%s, %s) <= %s::pg_lsn AND EXISTS (
  SELECT FROM pgdoc.registry r, jsonb_array_elements(r.columns) AS c
  WHERE r.kind = 'table' AND pgdoc.is_wanted(%s, %s, r.schema_name, r.name, true)
    AND c ->> 'form' = 'number' AND c ->> 'type' ~ '^(numeric|real|double precision)')
  AND (NOT %s::boolean OR pgdoc.published_since('', '{pgdoc.messages}') <= %s::pg_lsn AND EXISTS (
    SELECT FROM pg_publication_rel m JOIN pg_publication p ON p.oid = m.prpubid
    WHERE p.pubname = 'pgdoc'::name AND m.prrelid = 'pgdoc.messages'::regclass::oid))

-- name: existed
SELECT name, is_there, was_there FROM pgdoc.existed(%s, %s, %s::pg_lsn, %s::pg_lsn)

-- name: slot_name
SELECT format('pgdoc_%%s_%%s', oid, %s::text) AS name
FROM pg_database WHERE datname = current_database()

-- name: places
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS inserted,
  (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed
