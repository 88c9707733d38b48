-- The limit on the JSON text of a collection's documents; {table} is its table, {guard} as in `documents.sql`.

-- name: set_max_size
SELECT pgdoc.set_max_size(%s::oid::regclass, %s::bigint, %s)

-- name: set_json_schema
SELECT pgdoc.set_json_schema(%s::oid::regclass, %s::text, %s::jsonpath)

-- Outside a transaction. All who use the collection queue behind the wait for its lock, so it ends after a second.
-- name: set_max_size_briefly
WITH brief AS MATERIALIZED (SELECT set_config('lock_timeout', '1s', true)),
locked AS MATERIALIZED (SELECT pgdoc.lock_table(%s::oid::regclass, 'ACCESS EXCLUSIVE') FROM brief)
SELECT pgdoc.set_max_size(%s::oid::regclass, %s::bigint, %s) FROM locked

-- name: set_json_schema_briefly
WITH brief AS MATERIALIZED (SELECT set_config('lock_timeout', '1s', true)),
locked AS MATERIALIZED (SELECT pgdoc.lock_table(%s::oid::regclass, 'ACCESS EXCLUSIVE') FROM brief)
SELECT pgdoc.set_json_schema(%s::oid::regclass, %s::text, %s::jsonpath) FROM locked

-- Whether the table has this limit, and no other is being set.
-- name: has_max_size
SELECT (given.max_size IS NULL OR (pgdoc.max_size(given.oid) = given.max_size) IS TRUE) AND NOT EXISTS (
  SELECT FROM pg_constraint k WHERE k.conrelid = given.oid
    AND (k.conname = 'pgdoc_size_new' OR k.conname = 'pgdoc_size' AND given.max_size IS NULL))
FROM (VALUES (%s::oid, %s::bigint)) AS given(oid, max_size)

-- Whether the table has this schema, and the check that this version makes of it; if in doubt, false.
-- name: has_json_schema
SELECT CASE WHEN given.schema IS NULL THEN k.oid IS NULL ELSE coalesce(
  obj_description(k.oid, 'pg_constraint') = given.schema
  AND pg_get_constraintdef(k.oid) = format(
    'CHECK ((NOT jsonb_path_exists(data, %%s::jsonpath, ''{{}}''::jsonb, true))) NOT VALID',
    coalesce('''' || replace(given.violation::text, '''', '''''') || '''', 'NULL')), false) END
FROM (VALUES (%s::oid, %s::text, %s::jsonpath)) AS given(oid, schema, violation)
LEFT JOIN pg_constraint k ON k.conrelid = given.oid AND k.contype = 'c' AND k.conname = 'pgdoc_schema'

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
