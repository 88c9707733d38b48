-- What `pgdoc doctor` checks on a server where the catalog may be missing; `tables` needs the catalog.

-- name: server
SELECT current_setting('server_version') AS version, current_setting('max_slot_wal_keep_size') AS keep_size

-- name: standby_names
-- The setting, and the names of pgdoc's walsenders.
SELECT current_setting('synchronous_standby_names') AS names, array(
  SELECT a.application_name FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
  WHERE s.slot_name ~ '^pgdoc[a-z]?_') AS open

-- name: slots
-- The slots that pgdoc created in this database.
SELECT slot_name AS name, wal_status, (pg_current_wal_lsn() - restart_lsn)::bigint AS retained
FROM pg_replication_slots
WHERE slot_name ~ '^pgdoc[a-z]?_' AND database = current_database()
ORDER BY slot_name

-- name: blockers
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age_s, NULL AS gid
FROM pg_stat_activity WHERE backend_xid IS NOT NULL
UNION ALL
SELECT NULL, extract(epoch FROM clock_timestamp() - prepared)::float8, gid FROM pg_prepared_xacts
ORDER BY age_s DESC NULLS LAST

-- name: tables
-- `fault`: why the table can't be a collection. Partitions are left out: their root is there.
SELECT c.relname AS name, pgdoc.is_table(c.oid) AS is_watched, pgdoc.is_collection(c.oid) AS is_collection, pgdoc.form_fault(c.oid) AS fault,
  pgdoc.is_equipped(c.oid) AS is_equipped, c.relreplident = 'f' AS is_full
FROM pg_class c
WHERE (c.relkind = 'r' OR c.relkind = 'p') AND NOT c.relispartition AND c.relnamespace = to_regnamespace(%s)
ORDER BY c.relname

-- name: connections
SELECT count(*) AS used,
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most
FROM pg_stat_activity WHERE backend_type = 'client backend'

-- name: unfinished_indexes
SELECT c.relname AS name, t.relname AS collection
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE NOT i.indisvalid AND t.relnamespace = to_regnamespace(%s)
ORDER BY c.relname

-- name: follows_ddl
SELECT pgdoc.follows_ddl()

-- name: is_bound
SELECT pgdoc.is_bound()

-- name: unlimited
-- The collections of a schema whose documents have no limit.
SELECT found.name FROM pgdoc.collections(%s) WITH ORDINALITY AS found(name, place)
WHERE pgdoc.max_size(to_regclass(format('%%I.%%I', %s::text, found.name))) IS NULL
ORDER BY found.place

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
WHERE t.relnamespace = to_regnamespace(%s) AND c.collversion <> pg_collation_actual_version(c.oid)
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
