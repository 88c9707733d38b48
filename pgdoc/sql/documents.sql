-- The calls of a collection. {table} is its table; the writes of a block with metadata begin with `carry` and take
-- their row from it, so that the message stands in the WAL before the change: {carry} and {from_carry} are empty else.

-- name: carry
WITH carried AS MATERIALIZED (SELECT pg_logical_emit_message(true, 'pgdoc', %s))

-- name: emit
SELECT pg_logical_emit_message(true, 'pgdoc', %s)

-- name: insert
{carry} INSERT INTO {table} (id, data) SELECT %s, %s::jsonb {from_carry}
ON CONFLICT (id) DO NOTHING
RETURNING version, created_at, updated_at

-- name: copy
COPY {table} (id, data) FROM STDIN (FORMAT binary)

-- name: get
SELECT data::text, version, created_at, updated_at FROM {table} WHERE id = %s

-- name: find
SELECT id, data::text, version, created_at, updated_at FROM {table} WHERE {condition} {order} LIMIT %s OFFSET %s

-- name: count
SELECT count(*) FROM {table} WHERE {condition}

-- {change} gives NULL where the update does not fit the document; then, and where it changes nothing, no row is written.
-- name: update
{carry} UPDATE {table} SET data = {change} {from_carry}
WHERE id = %s {and_version} AND ({change}) <> data
RETURNING data::text, version, created_at, updated_at

-- name: judge_update
SELECT data::text, version, created_at, updated_at, ({change}) IS NOT NULL, ({change}) = data FROM {table} WHERE id = %s

-- {change} speaks of `data`, which would be ambiguous here, hence the row around it.
-- name: upsert
{carry} INSERT INTO {table} AS stored (id, data) SELECT %s, %s::jsonb {from_carry}
ON CONFLICT (id) DO UPDATE SET data = (SELECT {change} FROM (SELECT stored.data) AS old(data))
WHERE (SELECT {change} FROM (SELECT stored.data) AS old(data)) <> stored.data
RETURNING data::text, version, created_at, updated_at

-- name: replace
{carry} UPDATE {table} SET data = %s::jsonb, replaced_version = version + 1 {from_carry}
WHERE id = %s {and_version}
RETURNING version, created_at, updated_at

-- name: replace_upsert
{carry} INSERT INTO {table} AS stored (id, data) SELECT %s, %s::jsonb {from_carry}
ON CONFLICT (id) DO UPDATE SET data = excluded.data, replaced_version = stored.version + 1
RETURNING version, created_at, updated_at

-- name: delete
{carry} DELETE FROM {table} {using_carry} WHERE id = %s {and_version}
RETURNING true

-- name: version
SELECT version FROM {table} WHERE id = %s
