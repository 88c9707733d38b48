-- Reading the WAL's end, and what keeps it.

-- name: wal_end
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS inserted,
  (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed

-- name: flush
-- A commit flushes the WAL up to itself; the prefix is not ours to decode.
SELECT pg_logical_emit_message(true, 'pgdoc.flush', '')

-- name: oldest_bookmark
SELECT (min(confirmed_flush_lsn) - '0/0'::pg_lsn)::bigint AS oldest
FROM pg_replication_slots
WHERE slot_name LIKE format('pgdocb\_%%s\_%%%%', (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND wal_status <> 'lost'

-- name: watchable
-- The collections of a schema, and whether each one's changes come with before images.
SELECT c.relname::text, c.relreplident = 'f'
FROM pgdoc.collections(%s) AS collection (name) JOIN pg_class c ON c.relname = collection.name
WHERE c.relnamespace = to_regnamespace(quote_ident(%s))

-- name: create
SELECT pgdoc.create_collection(%s, %s)
