-- Indexes of a collection. CREATE INDEX and DROP INDEX take no parameters: `literals` writes their literals.

-- name: table_of
-- Whether an index that was created by the table's name is one of the table with this oid.
SELECT indrelid = %s::oid FROM pg_index
WHERE indexrelid = to_regclass(%s::text)::oid

-- name: parts
SELECT relname, indisvalid, (pg_relation_size(indexrelid)
    + coalesce((SELECT sum(pg_relation_size(i.inhrelid)) FROM pg_inherits i WHERE i.inhparent = indexrelid), 0::numeric))::bigint,
  obj_description(indexrelid, 'pg_class')
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = %s::oid
ORDER BY relname

-- name: create
CREATE INDEX {concurrently} {name} ON {table} USING {kind} {body}

-- name: create_unique
CREATE UNIQUE INDEX {concurrently} {name} ON {table} USING {kind} {body}

-- name: create_joined
-- The index of a collection with partitions, without any of theirs yet.
CREATE INDEX {name} ON ONLY {table} USING {kind} {body}

-- name: join
ALTER INDEX {name} ATTACH PARTITION {part}

-- name: partitions
SELECT c.oid::bigint, c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %s::oid
ORDER BY c.oid

-- name: drop_left
DROP INDEX CONCURRENTLY IF EXISTS {name}

-- name: comment
COMMENT ON INDEX {name} IS {comment}

-- name: drop
DROP INDEX {concurrently} {name}

-- name: analyze
ANALYZE {table}

-- name: lock
LOCK TABLE {table} IN ROW EXCLUSIVE MODE

-- name: begin_build
SELECT pgdoc.begin_index_build(%s::pg_catalog.oid)

-- name: end_build
SELECT pgdoc.end_index_build(%s::pg_catalog.oid)

-- name: progress
SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE pid = %s
