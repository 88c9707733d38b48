-- What `pgdoc doctor` checks on a server where the catalog may be missing; `tables` needs the catalog.

-- name: settings
SELECT name, setting, unit, current_setting(name) AS shown, source FROM pg_settings WHERE name = ANY (%s::text[])

-- name: role
-- What the role of this session may do and see. The walsender checks the role that logged in.
SELECT current_user::text AS role, r.rolsuper AS is_superuser, l.rolreplication OR l.rolsuper AS may_replicate,
  pg_has_role('pg_read_all_stats'::name, 'USAGE'::text) AS reads_stats,
  pg_has_role('pg_read_all_settings'::name, 'USAGE'::text) AS reads_settings, pg_is_in_recovery() AS in_recovery
FROM pg_roles r, pg_roles l WHERE r.rolname = current_user AND l.rolname = session_user

-- name: clock
SELECT clock_timestamp() AS now

-- name: wal_size
-- `failed_since`: since when nothing could be archived, if the last attempt failed.
SELECT (SELECT sum(size)::bigint FROM pg_ls_waldir()) AS size,
  CASE WHEN a.last_failed_time > coalesce(a.last_archived_time, '-infinity'::timestamptz) THEN a.last_failed_time END AS failed_since,
  a.failed_count AS failures
FROM pg_stat_archiver a

-- name: room
SELECT (SELECT count(*) FROM pg_replication_slots) AS slots, current_setting('max_replication_slots')::int AS max_slots,
  (SELECT count(*) FROM pg_stat_replication) AS walsenders, current_setting('max_wal_senders')::int AS max_walsenders

-- name: walsender_names
-- Of pgdoc's walsenders.
SELECT array(
  SELECT a.application_name FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
  WHERE s.slot_name ~ '^pgdoc[a-z]?_') AS open

-- name: standbys
-- The walsenders that stream to standbys, as far as the role may see them. A backup is in another state.
SELECT r.application_name AS name, s.slot_name AS slot
FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
WHERE r.state = ANY (ARRAY['streaming', 'catchup']) AND (s.slot_type <> 'logical') IS NOT FALSE
ORDER BY r.application_name, r.pid

-- name: sync_workers
-- A standby's worker that copies slots connects to a database of the primary.
SELECT a.pid FROM pg_stat_activity a WHERE a.application_name ~ 'slotsync worker$'

-- name: slots
-- All slots of the server. `is_ours` has all that are pgdoc's, of any database; `consumer` is the name in the slot of one.
SELECT s.slot_name::text AS name, s.slot_type AS type, s.database::text AS database, s.active, s.temporary, s.wal_status,
  coalesce(s.database = current_database(), false) AS is_here,
  s.slot_name ~ '^pgdoc[a-z]?_[0-9]+_' AS is_ours, s.slot_name ~ '^pgdoc_[0-9]+_' AS is_consumers,
  s.slot_name ~ '^pgdocb_[0-9]+_[0-9a-f]+_' AS is_bookmark,
  substring(s.slot_name::text, '^pgdoc_[0-9]+_(.*)$') AS consumer,
  (here.lsn - s.restart_lsn)::bigint AS retained,
  greatest(age(s.xmin), age(s.catalog_xmin)) AS xid_age, s.xmin IS NOT NULL AS has_feedback,
  coalesce((to_jsonb(s) ->> 'failover')::boolean, false) AS is_failover,
  coalesce((to_jsonb(s) ->> 'synced')::boolean, false) AS is_synced,
  to_jsonb(s) ->> 'invalidation_reason' AS reason,
  extract(epoch FROM clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8 AS idle_s
FROM pg_replication_slots s, (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) AS here(lsn)
ORDER BY s.slot_name

-- name: oldest_ids
SELECT datname::text AS name, age(datfrozenxid) AS age FROM pg_database ORDER BY age DESC

-- name: slot_limit
SELECT CASE WHEN setting <> '-1' THEN setting::bigint * 1048576::bigint END AS bytes
FROM pg_settings WHERE name = 'max_slot_wal_keep_size'

-- name: keeps_bookmarks_for_nobody
-- A row if the last store to close would have dropped the bookmarks, and none is open.
SELECT true AS holds FROM pgdoc.settings
WHERE current_setting('max_slot_wal_keep_size') = '-1' AND NOT history_chosen
  AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.database = current_database() AND s.slot_name ~ '^pgdoch_')
  AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = current_database()
                  AND a.application_name ~ 'pgdoc (bookmarks|hub)')

-- name: event_triggers
SELECT evtname::text AS name, evtenabled::text AS enabled FROM pg_event_trigger
WHERE evtname = 'pgdoc_drops' OR evtname = 'pgdoc_alters'
ORDER BY evtname

-- name: publication_owner
-- A row if the catalog's owner can't change the publication.
SELECT pg_get_userbyid(p.pubowner)::text AS name, pg_get_userbyid(n.nspowner)::text AS expected
FROM pg_publication p, pg_namespace n
WHERE p.pubname = 'pgdoc' AND n.nspname = 'pgdoc' AND NOT pg_has_role(n.nspowner, p.pubowner, 'USAGE')

-- name: foreign_tables
-- What others have added to the publication.
SELECT n.nspname::text AS schema, c.relname::text AS name
FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = 'pgdoc' AND n.nspname <> 'pgdoc'
  AND NOT EXISTS (SELECT FROM pgdoc.registry g WHERE g.oid = c.oid AND g.until IS NULL)
ORDER BY n.nspname, c.relname

-- name: consumers
-- As the block of `streams.sql`. The catalog knows when a consumer was last open to within an hour.
SELECT c.name, c.place <> '{}'::bigint[] AS is_settled, owner.pid AS owner_pid, s.wal_status,
  format('pgdoc_%s_%s', d.oid, c.name) AS slot,
  CASE WHEN s.confirmed_flush_lsn IS NOT NULL THEN greatest(0, least(
    pg_current_wal_flush_lsn() - s.confirmed_flush_lsn,
    pg_current_wal_flush_lsn() - '0/0'::pg_lsn - (greatest(c.place, p.acknowledged))[1]::numeric))::bigint END AS lag_bytes,
  (pg_current_wal_flush_lsn() - s.restart_lsn)::bigint AS retained_bytes,
  greatest(clock_timestamp() - owner.last_seen, '0'::interval) AS owner_silent,
  (SELECT min(u.commit_lsn)::text FROM pgdoc.unreadable u
   WHERE u.consumer = c.name AND u.skipped_at IS NULL
     AND (u.commit_lsn - '0/0'::pg_lsn)::bigint >= (greatest(c.place, p.acknowledged))[1]) AS unreadable,
  greatest(c.created_at, p.seen_at, claim.renewed_at) AS last_open_at, clock_timestamp() AS now
FROM pgdoc.consumers c
LEFT JOIN pgdoc.consumer_progress p ON p.name = c.name
LEFT JOIN pgdoc.owners claim ON claim.name = c.name
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_replication_slots s ON s.slot_name = format('pgdoc_%s_%s', d.oid, c.name)::name
LEFT JOIN LATERAL (
  SELECT a.pid,
    CASE WHEN a.backend_start IS NULL THEN CASE WHEN claim.needs_lease THEN claim.renewed_at END
         WHEN a.state = 'active'::text THEN clock_timestamp()
         ELSE greatest(a.state_change, claim.renewed_at) END AS last_seen
  FROM pg_stat_activity a
  WHERE a.pid = claim.pid AND a.datid = d.oid AND (a.backend_start = claim.backend_start) IS NOT FALSE
) owner ON true
ORDER BY c.name

-- name: blockers
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age_s, NULL AS gid, datname::text AS database
FROM pg_stat_activity WHERE backend_xid IS NOT NULL
UNION ALL
SELECT NULL, extract(epoch FROM clock_timestamp() - prepared)::float8, gid, database::text FROM pg_prepared_xacts
ORDER BY age_s DESC NULLS LAST

-- name: tables
-- `fault`: why the table can't be a collection. Partitions are left out: their root is there.
SELECT c.relname AS name, pgdoc.is_table(c.oid) AS is_watched, pgdoc.is_collection(c.oid) AS is_collection, pgdoc.form_fault(c.oid) AS fault,
  pgdoc.is_equipped(c.oid) AS is_equipped, pgdoc.has_before_images(c.oid) AS is_full
FROM pg_class c
WHERE (c.relkind = 'r' OR c.relkind = 'p') AND NOT c.relispartition AND c.relnamespace = to_regnamespace(quote_ident(%s::text))
ORDER BY c.relname

-- name: connections
SELECT count(*) AS used, current_setting('max_connections')::int AS setting,
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most
FROM pg_stat_activity WHERE backend_type = 'client backend'

-- name: unfinished_indexes
SELECT c.relname AS name, t.relname AS collection
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE NOT i.indisvalid AND t.relnamespace = to_regnamespace(quote_ident(%s::text))
ORDER BY c.relname

-- name: is_bound
SELECT pgdoc.is_bound()

-- name: frozen
-- Whether the database takes no writes, and whether it may be upgraded like this.
SELECT pgdoc.is_frozen('pgdoc.registry') AS is_frozen, pgdoc.is_prepared() AS is_prepared

-- name: unlimited
-- The collections of a schema whose documents have no limit.
SELECT c.relname::text AS name
FROM pgdoc.registry r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.until IS NULL AND r.kind = 'collection' AND n.nspname = %s::name AND pgdoc.max_size(c.oid) IS NULL
ORDER BY c.relname::text COLLATE "C"

-- name: larger
-- As the block of `limits.sql`: the first documents with more text than a limit, and how much.
SELECT id, octet_length(pgdoc.readable_text(data))
FROM {table}
WHERE pg_column_size(data || '{{}}') > (%s::bigint / 10000)
  AND (octet_length(pgdoc.readable_text(data)) <= %s::bigint) IS NOT TRUE
LIMIT %s

-- name: collations
-- The collations of the library that have another version than when the database, or the indexes of a schema, recorded it.
-- No row for one without a version, such as "C". `schema` is NULL for the database's own.
SELECT NULL AS schema, d.datname AS name, d.datcollversion AS recorded, pg_database_collation_actual_version(d.oid) AS actual,
  ARRAY[]::text[] AS indexes
FROM pg_database d
WHERE d.datname = current_database() AND d.datcollversion <> pg_database_collation_actual_version(d.oid)
UNION ALL
SELECT n.nspname, c.collname, c.collversion, pg_collation_actual_version(c.oid), array_agg(DISTINCT x.relname::text)
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
  CROSS JOIN LATERAL unnest(i.indcollation::oid[]) AS used(oid)
  JOIN pg_collation c ON c.oid = used.oid JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE t.relnamespace = to_regnamespace(quote_ident(%s::text)) AND c.collversion <> pg_collation_actual_version(c.oid)
GROUP BY n.nspname, c.collname, c.collversion, c.oid
ORDER BY schema NULLS FIRST, name

-- name: watched_tables
-- The tables that are watched as they are, and what is wrong with each. `inexact` has the columns whose NaN and infinities wal2json
-- sends as null.
SELECT format('%I.%I', t.schema_name, t.name) AS quoted, t.schema_name || '.' || t.name AS name, t.document,
  c.relreplident = 'f' AS is_full,
  pgdoc.is_published(c.oid) AS is_published,
  pgdoc.table_columns(c.oid::regclass) <> t.columns OR pgdoc.table_key(c.oid::regclass) <> t.key AS is_stale,
  pgdoc.table_fault(c.oid::regclass, t.document) AS fault,
  pgdoc.publication_conflict(c.oid::regclass) AS conflict,
  c.relrowsecurity AS has_policies,
  ARRAY(SELECT f.item ->> 'name' FROM jsonb_array_elements(t.columns) AS f(item)
        WHERE f.item ->> 'form' = 'number' AND f.item ->> 'type' ~ '^(numeric|real|double precision)') AS inexact,
  (SELECT s.inhrelid::regclass::text FROM pg_inherits i JOIN pg_inherits s ON s.inhparent = i.inhparent
     JOIN pg_class p ON p.oid = s.inhrelid
   WHERE i.inhrelid = c.oid AND c.relispartition AND p.relkind = 'r'
     AND NOT EXISTS (SELECT FROM pgdoc.registry r WHERE r.oid = s.inhrelid AND r.until IS NULL)
   ORDER BY 1 LIMIT 1) AS unwatched_partition
FROM pgdoc.tables() AS t JOIN pg_namespace n ON n.nspname = t.schema_name JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
ORDER BY 2

-- name: dead_letters
-- `is_run` says whether the process that has the consumer open runs the handler; NULL if none has it open. Who has a
-- partition of a log stands beside that: the last that took it runs the handlers whose epoch is the highest.
SELECT d.consumer, d.handler, d.dead, d.due, d.letters, d.oldest_dead, c.name IS NOT NULL OR of_group.epoch IS NOT NULL AS has_consumer,
  clock_timestamp() AS now, owner.pid IS NOT NULL OR of_group.epoch IS NOT NULL AS is_owned,
  CASE WHEN of_group.epoch IS NOT NULL THEN EXISTS (
    SELECT FROM pgdoc.handlers h WHERE h.consumer = d.consumer AND h.handler = d.handler AND h.epoch = of_group.epoch)
  WHEN owner.pid IS NOT NULL THEN EXISTS (
    SELECT FROM pgdoc.handlers h WHERE h.consumer = c.name AND h.handler = d.handler AND h.epoch = c.epoch AND h.holder = c.holder) END AS is_run
FROM (
  SELECT consumer, handler, count(*) AS letters, sum(CASE WHEN state = 'dead' THEN 1 ELSE 0 END)::bigint AS dead,
    sum(CASE WHEN state = 'due' THEN 1 ELSE 0 END)::bigint AS due, min(CASE WHEN state = 'dead' THEN stored_at END) AS oldest_dead
  FROM pgdoc.dead_letters GROUP BY consumer, handler) AS d
LEFT JOIN pgdoc.consumers c ON c.name = d.consumer
LEFT JOIN LATERAL (
  SELECT a.pid FROM pgdoc.owners o JOIN pg_stat_activity a ON a.pid = o.pid
  WHERE o.name = c.name AND a.datname = current_database() AND (a.backend_start = o.backend_start) IS NOT FALSE
) owner ON true
LEFT JOIN LATERAL (
  SELECT max(h.epoch) AS epoch FROM pgdoc.handlers h WHERE h.consumer = d.consumer AND h.log IS NOT NULL
) of_group ON true
ORDER BY d.consumer, d.handler

-- name: group_logs
-- The logs whose groups have rows. Those of handlers name no engine.
SELECT max(COALESCE(log, name)) AS log FROM (
  SELECT substr(log, strpos(log, ':') + 1) AS name, log FROM pgdoc.group_positions
  UNION ALL
  SELECT split_part(log, ' ', 1), NULL FROM pgdoc.handlers WHERE log IS NOT NULL
) AS found GROUP BY name ORDER BY 1
