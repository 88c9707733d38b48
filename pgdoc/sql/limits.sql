-- The limit on the JSON text of a collection's documents; {table} is its table, {guard} as in `documents.sql`.

-- name: set_max_size
SELECT pgdoc.set_max_size(%s::oid::regclass, %s::bigint, %s)

-- name: set_json_schema
SELECT pgdoc.set_json_schema(%s::oid::regclass, %s::text, %s::jsonpath)

-- name: validate
-- Readers and writers go on meanwhile.
ALTER TABLE {table} VALIDATE CONSTRAINT pgdoc_size_new

-- name: undo
ALTER TABLE {table} DROP CONSTRAINT IF EXISTS pgdoc_size_new

-- name: larger
-- The first documents that have more text, and how much; NULL for one that PostgreSQL can't print. The first condition is
-- that of `pgdoc.size_condition`: nearly all documents are passed without being printed.
SELECT id, octet_length(pgdoc.readable_text(data))
FROM {table}
WHERE {guard} AND pg_column_size(data || '{{}}') > (%s::bigint / 10000)
  AND (octet_length(pgdoc.readable_text(data)) <= %s::bigint) IS NOT TRUE
LIMIT %s
