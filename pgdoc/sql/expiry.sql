-- Documents that expire; see 0009_expiry.sql of the migrations.

-- name: has_work
-- Whether documents expire in a schema, and this session may delete them.
SELECT EXISTS (SELECT FROM pgdoc.expiring(%s) AS found WHERE found.obstacle IS NULL)

-- name: expiring
SELECT found.index::bigint, found.collection, found.name, found.obstacle FROM pgdoc.expiring(%s) AS found

-- name: batch
SELECT claimed, met, deleted, latest FROM pgdoc.expire_batch(%s::oid, %s::bigint, %s::timestamptz, %s, %s)

-- name: backlog
SELECT due, extract(epoch FROM clock_timestamp() - due_since)::float8, ignored FROM pgdoc.expiry_backlog(%s::oid)
