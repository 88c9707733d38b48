-- Which entry of its log belongs to the position of a relay's consumer. See pgdoc._async.relay_session.

-- name: stored
SELECT sequence, identity FROM pgdoc.relays WHERE consumer = %s

-- name: save
-- Runs in the transaction that stores the consumer's position.
INSERT INTO pgdoc.relays AS r (consumer, log, identity, sequence) VALUES (%s::text, %s::text, %s::text, %s::bigint)
ON CONFLICT (consumer) DO UPDATE
SET log = excluded.log, identity = excluded.identity, sequence = excluded.sequence, changed_at = clock_timestamp()
RETURNING true

-- name: ids
SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT oid FROM pg_database WHERE datname = current_database())
