-- The reads of many documents of a collection. {table} is its table.

-- name: find
SELECT id, ({fields})::text, version, created_at, updated_at FROM {table} WHERE {condition} {order} LIMIT %s OFFSET %s

-- name: explain
EXPLAIN SELECT id, data::text, version, created_at, updated_at FROM {table}
WHERE {condition} {order} LIMIT %s OFFSET %s

-- name: count
SELECT count(*) FROM {table} WHERE {condition}

-- name: distinct
SELECT value::text
FROM (SELECT DISTINCT value FROM {table} CROSS JOIN LATERAL {values} AS found(value) WHERE {condition}) AS every
ORDER BY pgdoc.sort_key(value) COLLATE "C", pgdoc.sort_rest(value) COLLATE "C" NULLS FIRST
