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
