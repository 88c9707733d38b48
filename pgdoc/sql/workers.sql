-- The rows of workers: how far each handler has come, and the events that it could not process. See pgdoc.workers.

-- name: begin
-- Waits for a transaction in which a former owner runs the handler; see pgdoc.consumers.handlers.
INSERT INTO pgdoc.handlers AS h (consumer, handler, epoch, holder, begun_place, begun_times)
SELECT c.name, %(handler)s, c.epoch, c.holder, %(at)s::bigint[], 1
FROM pgdoc.consumers c WHERE c.name = %(name)s AND c.epoch = %(epoch)s AND c.holder = %(holder)s
ON CONFLICT (consumer, handler) DO UPDATE
SET epoch = excluded.epoch, holder = excluded.holder,
  begun_place = greatest(h.place, excluded.begun_place),
  begun_times = CASE WHEN (h.begun_place = greatest(h.place, excluded.begun_place)) THEN h.begun_times + %(more)s ELSE 1 END
WHERE h.epoch < excluded.epoch OR h.epoch = excluded.epoch AND h.holder = excluded.holder
RETURNING place, begun_times

-- name: begin_of_group
-- The same for a partition of a log: the claim stands there, and the highest epoch is the last.
INSERT INTO pgdoc.handlers AS h (consumer, handler, epoch, holder, begun_place, begun_times, log)
VALUES (%(name)s, %(handler)s, %(epoch)s, %(holder)s, %(at)s::bigint[], 1, %(log)s::text)
ON CONFLICT (consumer, handler) DO UPDATE
SET epoch = excluded.epoch, holder = excluded.holder,
  begun_place = greatest(h.place, excluded.begun_place),
  begun_times = CASE WHEN (h.begun_place = greatest(h.place, excluded.begun_place)) THEN h.begun_times + %(more)s ELSE 1 END
WHERE (h.epoch < excluded.epoch OR h.epoch = excluded.epoch AND h.holder = excluded.holder) AND h.log = excluded.log
RETURNING place, begun_times

-- name: other_log
SELECT log FROM pgdoc.handlers
WHERE consumer = %(name)s AND handler = %(handler)s AND log IS NOT NULL AND log <> %(log)s::text

-- name: epoch_of_group
SELECT epoch FROM pgdoc.handlers WHERE consumer = %(name)s AND handler = %(handler)s

-- name: end
UPDATE pgdoc.handlers SET begun_times = 0, tried_times = 0
WHERE consumer = %(name)s AND handler = %(handler)s AND epoch = %(epoch)s AND holder = %(holder)s
RETURNING true

-- name: save
-- Runs in the transaction of the effect, under the user's search_path. What a failover has undone is missed: the handler
-- stood at `last`.
UPDATE pgdoc.handlers SET place = %(place)s::bigint[]
WHERE consumer = %(name)s::text AND handler = %(handler)s::text AND epoch = %(epoch)s::bigint AND holder = %(holder)s::uuid
  AND place = %(last)s::bigint[]
  AND ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int = %(timeline)s::integer
RETURNING true

-- name: save_of_group
UPDATE pgdoc.handlers SET place = %(place)s::bigint[]
WHERE consumer = %(name)s::text AND handler = %(handler)s::text AND epoch = %(epoch)s::bigint AND holder = %(holder)s::uuid
  AND place = %(last)s::bigint[]
RETURNING true

-- name: lock
-- Runs in the transaction of the effect of a letter, as `save` does.
SELECT true FROM pgdoc.handlers
WHERE consumer = %(name)s::text AND handler = %(handler)s::text AND epoch = %(epoch)s::bigint AND holder = %(holder)s::uuid
FOR UPDATE

-- name: stored
SELECT h.place, c.place FROM pgdoc.handlers h JOIN pgdoc.consumers c ON c.name = h.consumer
WHERE h.consumer = %(name)s AND h.handler = %(handler)s AND h.epoch = %(epoch)s AND h.holder = %(holder)s

-- name: stored_of_group
SELECT place FROM pgdoc.handlers
WHERE consumer = %(name)s AND handler = %(handler)s AND epoch = %(epoch)s AND holder = %(holder)s

-- name: note_try
UPDATE pgdoc.handlers SET tried_place = %(place)s::bigint[],
  tried_times = CASE WHEN (tried_place = %(place)s::bigint[]) THEN tried_times + %(more)s ELSE 1 END
WHERE consumer = %(name)s AND handler = %(handler)s AND epoch = %(epoch)s AND holder = %(holder)s
RETURNING tried_times

-- name: put
-- Runs in the transaction that stores the position. A letter that waits is due at once if only due ones are before it.
INSERT INTO pgdoc.dead_letters
  (consumer, handler, state, event_type, collection, document_id, token, event, error, traceback, attempts, changed_at, tried_at)
SELECT %(name)s::text, %(handler)s::text,
  CASE WHEN %(error)s::text IS NOT NULL THEN 'dead'::text
       WHEN EXISTS (
         SELECT FROM pgdoc.dead_letters d
         WHERE d.consumer = %(name)s::text AND d.handler = %(handler)s::text AND d.collection = %(collection)s::text
           AND d.state = ANY (ARRAY['dead'::text, 'parked'::text]) AND d.document_id = %(document_id)s::text)
         OR EXISTS (
         SELECT FROM pgdoc.dead_letters d
         WHERE d.consumer = %(name)s::text AND d.handler = %(handler)s::text AND d.collection = %(collection)s::text
           AND d.state = ANY (ARRAY['dead'::text, 'parked'::text]) AND d.document_id IS NULL)
         OR %(document_id)s::text IS NULL AND EXISTS (
         SELECT FROM pgdoc.dead_letters d
         WHERE d.consumer = %(name)s::text AND d.handler = %(handler)s::text AND d.collection = %(collection)s::text
           AND d.state = ANY (ARRAY['dead'::text, 'parked'::text]))
         THEN 'parked'::text
       ELSE 'due'::text END,
  %(event_type)s::text, %(collection)s::text, %(document_id)s::text, %(token)s::text, %(event)s::text::json, %(error)s::text,
  %(traceback)s::text, %(attempts)s::integer, %(changed_at)s::timestamptz,
  CASE WHEN %(error)s::text IS NOT NULL THEN clock_timestamp() END
RETURNING true

-- name: parked
SELECT DISTINCT collection, document_id FROM pgdoc.dead_letters WHERE consumer = %(name)s AND handler = %(handler)s

-- name: release
-- Makes due what no dead letter holds back, nor an event of the whole collection that one holds back. Each condition of its own, so that each has its index.
UPDATE pgdoc.dead_letters AS p SET state = 'due'
WHERE p.consumer = %(name)s AND p.handler = %(handler)s AND p.state = 'parked'
  AND (NOT %(parks)s OR (
    NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id
        AND d.document_id = p.document_id)
    AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id
        AND d.document_id IS NULL)
    AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters n
      WHERE n.consumer = p.consumer AND n.handler = p.handler AND n.state = 'parked' AND n.collection = p.collection AND n.id < p.id
        AND n.document_id IS NULL AND EXISTS (
          SELECT FROM pgdoc.dead_letters d
          WHERE d.consumer = n.consumer AND d.handler = n.handler AND d.state = 'dead' AND d.collection = n.collection AND d.id < n.id))
    AND (p.document_id IS NOT NULL OR NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id))))
RETURNING true

-- name: have_due
-- The handlers with letters that are due, or that wait and perhaps for nothing: somebody may have deleted dead ones.
SELECT DISTINCT handler FROM pgdoc.dead_letters WHERE consumer = %s AND (state = 'due' OR %s AND state = 'parked')

-- name: next_due
-- None, if somebody has made an earlier one due meanwhile: it may be of the same document.
SELECT id, collection, document_id, token, event::text, attempts FROM pgdoc.dead_letters
WHERE consumer = %(name)s AND handler = %(handler)s AND state = 'due' AND id > %(after)s
  AND NOT EXISTS (
    SELECT FROM pgdoc.dead_letters e
    WHERE e.consumer = %(name)s AND e.handler = %(handler)s AND e.state = 'due' AND e.id <= %(after)s)
ORDER BY id LIMIT 1

-- name: remove
-- Runs in the transaction of the effect. No row: somebody has dropped the letter.
DELETE FROM pgdoc.dead_letters WHERE id = %(id)s::bigint AND state = 'due'::text RETURNING true

-- name: release_next
-- Runs there, too: what waited behind the letter is due, up to the next dead one.
UPDATE pgdoc.dead_letters AS p SET state = 'due'::text
WHERE p.consumer = %(name)s::text AND p.handler = %(handler)s::text AND p.state = 'parked'::text
  AND p.collection = %(collection)s::text
  AND (p.document_id = %(document_id)s::text OR p.document_id IS NULL OR %(document_id)s::text IS NULL)
  AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead'::text AND d.collection = p.collection AND d.id < p.id
        AND d.document_id = p.document_id)
  AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead'::text AND d.collection = p.collection AND d.id < p.id
        AND d.document_id IS NULL)
  AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters n
      WHERE n.consumer = p.consumer AND n.handler = p.handler AND n.state = 'parked'::text AND n.collection = p.collection AND n.id < p.id
        AND n.document_id IS NULL AND EXISTS (
          SELECT FROM pgdoc.dead_letters d
          WHERE d.consumer = n.consumer AND d.handler = n.handler AND d.state = 'dead'::text AND d.collection = n.collection AND d.id < n.id))
  AND (p.document_id IS NOT NULL OR NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead'::text AND d.collection = p.collection AND d.id < p.id))
RETURNING true

-- name: fail
-- The letter is dead again, and what is due behind it waits if the handler parks. Without its event the handler was not
-- called: what it failed with stays, and is followed by the reason.
WITH failed AS (
  UPDATE pgdoc.dead_letters
  SET state = 'dead',
    error = CASE WHEN event IS NOT NULL OR error IS NULL THEN %(error)s::text
      WHEN strpos(error, %(error)s::text) > 0 THEN error
      ELSE error || chr(10) || %(error)s::text END,
    traceback = CASE WHEN event IS NOT NULL OR traceback IS NULL THEN %(traceback)s::text ELSE traceback END,
    attempts = CASE WHEN event IS NOT NULL THEN attempts + 1 ELSE attempts END,
    tried_at = CASE WHEN event IS NOT NULL THEN clock_timestamp() ELSE tried_at END
  WHERE id = %(id)s AND state = 'due'
  RETURNING id
), forgotten AS (
  UPDATE pgdoc.handlers SET tried_times = 0
  WHERE consumer = %(name)s AND handler = %(handler)s AND epoch = %(epoch)s AND holder = %(holder)s
)
UPDATE pgdoc.dead_letters AS p SET state = 'parked'
FROM failed
WHERE %(parks)s AND p.consumer = %(name)s AND p.handler = %(handler)s AND p.collection = %(collection)s AND p.state = 'due'
  AND p.id > failed.id
  AND (p.document_id = %(document_id)s OR p.document_id IS NULL OR %(document_id)s::text IS NULL OR EXISTS (
      SELECT FROM pgdoc.dead_letters n
      WHERE n.consumer = p.consumer AND n.handler = p.handler AND n.state = ANY (ARRAY['due', 'parked'])
        AND n.collection = p.collection AND n.document_id IS NULL AND n.id > failed.id AND n.id < p.id))
RETURNING true
