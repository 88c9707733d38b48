-- `pgdoc upgrade`: around an upgrade of PostgreSQL.

-- name: databases
SELECT datname AS name, has_database_privilege(oid, 'CONNECT') AS may_connect,
  (SELECT count(*) FROM pg_replication_slots s WHERE s.database = d.datname AND starts_with(s.slot_name, 'pgdoc')) AS slots
FROM pg_database d
WHERE datallowconn AND NOT datistemplate
ORDER BY datname

-- name: catalog
-- The role that owns the catalog, if there is one, and whether this session has its rights.
SELECT pg_get_userbyid(n.nspowner) AS owner, pg_has_role(n.nspowner, 'USAGE') AS is_ours
FROM pg_namespace n WHERE n.nspname = 'pgdoc' AND to_regclass('pgdoc.alembic_version') IS NOT NULL

-- name: is_bound
SELECT pgdoc.is_bound()

-- name: state
SELECT u.system_id = s.system_identifier AS is_here, u.is_prepared, u.server, u.began_at
FROM pgdoc.upgrade u, pg_control_system() s

-- name: was_finished
SELECT EXISTS (SELECT FROM pgdoc.former_clusters WHERE is_upgrade)

-- name: prepared_transactions
SELECT gid, database FROM pg_prepared_xacts ORDER BY prepared

-- name: foreign_slots
-- Slots that this command does not drop; `prepared` are the databases of which it drops pgdoc's, NULL for all. Before
-- PostgreSQL 17, pg_upgrade leaves logical slots behind.
SELECT s.slot_name AS name, s.database, s.plugin, s.active, s.wal_status,
  current_setting('server_version_num')::int >= 170000 AS is_checked, s.slot_name ~ format('^pgdocb?_%%s_', d.oid) AS is_left
FROM pg_replication_slots s JOIN pg_database d ON d.datname = s.database
WHERE s.slot_type = 'logical' AND NOT s.temporary AND NOT (s.slot_name ~ format('^pgdocb?_%%s_', d.oid)
  AND coalesce(d.datname = ANY (%(prepared)s::text[]), true))
ORDER BY s.slot_name

-- name: consumers
-- As `owner` and `find` of consumers.sql have it: the state of the last claim, and the position. A slot without a consumer
-- has an empty name.
SELECT c.name, c.schema_name, greatest(c.place, p.acknowledged) AS place,
  CASE WHEN p.acknowledged > c.place THEN p.snapshot ELSE c.snapshot END AS snapshot,
  CASE WHEN p.acknowledged > c.place THEN p.system_id ELSE c.system_id END AS system_id,
  CASE WHEN p.acknowledged > c.place THEN p.timeline ELSE c.timeline END AS timeline,
  CASE WHEN p.acknowledged > c.place THEN p.database_oid ELSE c.database_oid END AS database_oid,
  s.slot_name::text AS slot, s.plugin::text AS plugin, s.wal_status, to_jsonb(s) ->> 'invalidation_reason' AS reason,
  (s.confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed,
  CASE WHEN a.pid IS NULL OR a.backend_start <> o.backend_start THEN NULL
       WHEN a.backend_start = o.backend_start OR NOT o.needs_lease THEN a.pid
       WHEN clock_timestamp() >= o.renewed_at AND clock_timestamp() <= (o.renewed_at + o.ttl) THEN a.pid END AS owner_pid
FROM pgdoc.consumers c
LEFT JOIN pgdoc.consumer_progress p ON p.name = c.name
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_replication_slots s ON s.slot_name = format('pgdoc_%%s_%%s', d.oid, c.name)::name
LEFT JOIN pgdoc.owners o ON o.name = c.name
LEFT JOIN pg_stat_activity a ON a.pid = o.pid AND a.datid = d.oid
ORDER BY c.name

-- name: slots_of_nobody
SELECT s.slot_name::text AS name
FROM pg_replication_slots s JOIN pg_database d ON d.datname = current_database()
WHERE starts_with(s.slot_name, format('pgdoc_%%s_', d.oid)) AND NOT s.temporary AND NOT EXISTS (
  SELECT FROM pgdoc.consumers c WHERE s.slot_name = format('pgdoc_%%s_%%s', d.oid, c.name)::name)
ORDER BY s.slot_name

-- name: own_slots
-- The permanent slots of pgdoc in this database, those of consumers first.
SELECT s.slot_name::text AS name, starts_with(s.slot_name, 'pgdocb_') AS is_bookmark
FROM pg_replication_slots s JOIN pg_database d ON d.datname = current_database()
WHERE s.slot_name ~ format('^pgdocb?_%%s_', d.oid) AND NOT s.temporary
ORDER BY 2, 1

-- name: ask_for_leases
-- A role without pg_read_all_stats can't tell whether the session of another role's claim is still the same.
UPDATE pgdoc.owners o SET needs_lease = true, renewed_at = clock_timestamp()
FROM pg_stat_activity a
WHERE a.pid = o.pid AND a.backend_start IS NULL AND NOT o.needs_lease

-- name: freeze
SELECT pgdoc.freeze(), pgdoc.freeze_table('pgdoc.messages')

-- name: thaw
SELECT pgdoc.thaw()

-- name: undo_freeze
-- Unless the database is prepared, perhaps by another run at this moment.
SELECT pgdoc.thaw() FROM (SELECT FROM pgdoc.upgrade WHERE NOT is_prepared FOR UPDATE) AS unprepared

-- name: lock_owners
LOCK TABLE pgdoc.owners IN SHARE ROW EXCLUSIVE MODE

-- name: end_claims
-- A process that wakes up later can't come back under its claim: it has to open the consumer again, and so to find its
-- new position.
UPDATE pgdoc.owners SET epoch = epoch + 1, holder = gen_random_uuid(), pid = NULL, backend_start = NULL

-- name: note_consumer
INSERT INTO pgdoc.upgrade_consumers (name, plugin) VALUES (%s, %s)

-- name: note_prepared
-- Another run may have undone the freeze under which everything was checked, and begun its own.
UPDATE pgdoc.upgrade SET is_prepared = true WHERE began_at = %s RETURNING true

-- name: freeze_owners
SELECT pgdoc.freeze_table('pgdoc.owners')

-- name: writable
-- What takes writes although the database is prepared, or is gone.
SELECT r.schema_name, r.name FROM pgdoc.registry r
WHERE r.until IS NULL AND NOT coalesce(pgdoc.is_frozen(to_regclass(format('%%I.%%I', r.schema_name, r.name))), false)
UNION ALL
SELECT 'pgdoc', 'registry' WHERE NOT pgdoc.is_frozen('pgdoc.registry')
UNION ALL
SELECT 'pgdoc', 'messages' WHERE NOT pgdoc.is_frozen('pgdoc.messages')
UNION ALL
SELECT 'pgdoc', 'owners' WHERE NOT pgdoc.is_frozen('pgdoc.owners')
ORDER BY 1, 2

-- name: left_out
-- Frozen tables that are neither collections nor watched any more.
SELECT DISTINCT t.tgrelid::regclass::text AS name
FROM pg_trigger t
WHERE t.tgfoid = 'pgdoc.refuse_frozen()'::regprocedure AND t.tgparentid = '0'::oid
  AND t.tgrelid <> ALL (ARRAY['pgdoc.registry'::regclass, 'pgdoc.messages'::regclass, 'pgdoc.owners'::regclass])
  AND NOT EXISTS (SELECT FROM pgdoc.registry r WHERE r.oid = t.tgrelid AND r.until IS NULL)
ORDER BY 1

-- name: frozen
SELECT count(*) FROM pgdoc.registry r WHERE r.until IS NULL AND pgdoc.is_frozen(r.oid)

-- name: to_move
SELECT u.name, u.plugin, u.is_moved, c.schema_name
FROM pgdoc.upgrade_consumers u JOIN pgdoc.consumers c ON c.name = u.name
ORDER BY u.name

-- name: lock_move
-- Gives no row once the database is thawed: then the consumer may be in use.
SELECT true FROM pgdoc.upgrade_consumers WHERE name = %s FOR UPDATE

-- name: move
-- Both stored positions are of the former cluster, and its LSNs say nothing here.
WITH moved AS (
  UPDATE pgdoc.upgrade_consumers SET is_moved = true WHERE name = %(name)s RETURNING name
), progress AS (
  UPDATE pgdoc.consumer_progress
  SET acknowledged = %(place)s::bigint[], snapshot = NULL, system_id = %(system)s, timeline = %(timeline)s,
    database_oid = %(database)s, waiting_since = NULL, seen_at = clock_timestamp()
  WHERE name = (SELECT name FROM moved)
)
UPDATE pgdoc.consumers
SET place = %(place)s::bigint[], snapshot = NULL, system_id = %(system)s, timeline = %(timeline)s, database_oid = %(database)s
WHERE name = (SELECT name FROM moved)

-- name: schemas
SELECT DISTINCT schema_name FROM pgdoc.registry WHERE until IS NULL ORDER BY schema_name

-- name: lock_holders
SELECT DISTINCT l.pid, a.usename AS role, l.relation::regclass::text AS relation
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.locktype = 'relation' AND a.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.relation = ANY (ARRAY(SELECT r.oid FROM pgdoc.registry r WHERE r.until IS NULL)) OR l.relation = 'pgdoc.registry'::regclass
    OR l.relation = 'pgdoc.messages'::regclass)
ORDER BY l.pid
LIMIT 10
