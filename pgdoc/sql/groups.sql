-- How far the effects of a group's events are stored. See pgdoc._async.group_positions.

-- name: claim
-- Waits for a transaction of a former owner, which then can't store another position.
INSERT INTO pgdoc.group_positions AS g (log, group_name, partition, epoch)
VALUES (%s::text, %s::text, %s::integer, %s::bigint)
ON CONFLICT (log, group_name, partition) DO UPDATE
SET epoch = excluded.epoch, changed_at = clock_timestamp()
WHERE g.epoch <= excluded.epoch
RETURNING token

-- name: checkpoint
UPDATE pgdoc.group_positions
SET identity = %(identity)s::text, sequence = %(sequence)s::bigint, token = %(token)s::text, changed_at = clock_timestamp()
WHERE log = %(log)s::text AND group_name = %(group)s::text AND partition = %(partition)s::integer
  AND epoch = %(epoch)s::bigint AND token <> %(token)s::text
  AND (identity <> %(identity)s::text OR sequence < %(sequence)s::bigint)
RETURNING true

-- name: stored
SELECT epoch, token, sequence FROM pgdoc.group_positions
WHERE log = %s::text AND group_name = %s::text AND partition = %s::integer

-- name: committed
SELECT partition, epoch, sequence, token, identity FROM pgdoc.group_positions
WHERE log = %s::text AND group_name = %s::text

-- name: left
-- The rows of the groups of a log; those of handlers have no partition here. Whose events the log had when these were
-- stored does not matter: somebody may have deleted it, and made it anew.
SELECT group_name, partition, identity, sequence, token FROM pgdoc.group_positions WHERE log = %(log)s::text
UNION ALL
SELECT split_part(consumer, '#', 1), NULL, '', 0, '' FROM pgdoc.handlers
WHERE split_part(log, ' ', 1) = %(name)s::text

-- name: limit_waiting
SELECT set_config('lock_timeout', %s::text, true)

-- name: drop
-- Waits for open transactions of former members, which then can't store another position.
WITH positions AS (
  DELETE FROM pgdoc.group_positions WHERE log = %(log)s::text AND group_name = %(group)s::text RETURNING true
), places AS (
  DELETE FROM pgdoc.handlers
  WHERE split_part(consumer, '#', 1) = %(group)s::text AND split_part(log, ' ', 1) = %(name)s::text
  RETURNING true
)
SELECT (SELECT count(*) FROM positions) + (SELECT count(*) FROM places)
