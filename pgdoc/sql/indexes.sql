-- Indexes of a collection. CREATE INDEX and DROP INDEX take no parameters: `literals` writes their literals.

-- name: table_of
-- Whether an index that was created by the table's name is one of the table with this oid.
SELECT indrelid OPERATOR(pg_catalog.=) %s::pg_catalog.oid FROM pg_catalog.pg_index
WHERE indexrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(%s::pg_catalog.text)::pg_catalog.oid

-- name: parts
SELECT relname, indisvalid, pg_relation_size(indexrelid), obj_description(indexrelid, 'pg_class')
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = %s::oid
ORDER BY relname

-- name: create
CREATE INDEX {concurrently} {name} ON {table} USING {kind} {body}

-- name: create_unique
CREATE UNIQUE INDEX {concurrently} {name} ON {table} USING {kind} {body}

-- name: comment
COMMENT ON INDEX {name} IS {comment}

-- name: drop
DROP INDEX {concurrently} {name}

-- name: analyze
ANALYZE {table}

-- name: lock
SELECT pg_try_advisory_lock(hashtextextended('pgdoc indexes of ' || %s::text, 0))

-- name: unlock
SELECT pg_advisory_unlock(hashtextextended('pgdoc indexes of ' || %s::text, 0))

-- name: progress
SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE pid = %s
