-- What operators do with the dead letters of workers. See workers.sql for what workers do with them. What holds a letter back
-- is found by three conditions, each of which an index serves: one with OR would compare each letter with all others.

-- name: list
SELECT id, consumer, handler, state, event_type, collection, document_id, token, event::text, error, traceback, attempts,
  changed_at, stored_at, tried_at
FROM pgdoc.dead_letters
WHERE id > %(after)s::bigint
  AND (%(consumer)s::text IS NULL OR consumer = %(consumer)s::text)
  AND (%(handler)s::text IS NULL OR handler = %(handler)s::text)
  AND (%(state)s::text IS NULL OR state = %(state)s::text)
  AND (%(collection)s::text IS NULL OR collection = %(collection)s::text)
  AND (%(document_id)s::text IS NULL OR document_id = %(document_id)s::text)
ORDER BY id
LIMIT %(limit)s::bigint

-- name: retry
-- A letter that waits is due, too, once no dead one is before it: the worker tries them in order.
WITH retried AS (
  UPDATE pgdoc.dead_letters SET state = 'due'
  WHERE state = 'dead'
    AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
    AND (%(consumer)s::text IS NULL OR consumer = %(consumer)s::text)
    AND (%(handler)s::text IS NULL OR handler = %(handler)s::text)
    AND (%(collection)s::text IS NULL OR collection = %(collection)s::text)
    AND (%(document_id)s::text IS NULL OR document_id = %(document_id)s::text)
  RETURNING id, consumer, handler
), released AS (
  UPDATE pgdoc.dead_letters AS p SET state = 'due'
  WHERE p.state = 'parked' AND EXISTS (SELECT FROM retried r WHERE r.consumer = p.consumer AND r.handler = p.handler)
    AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id
        AND d.document_id = p.document_id
        AND NOT EXISTS (SELECT FROM retried r WHERE r.id = d.id))
    AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id
        AND d.document_id IS NULL
        AND NOT EXISTS (SELECT FROM retried r WHERE r.id = d.id))
    AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters n
      WHERE n.consumer = p.consumer AND n.handler = p.handler AND n.state = 'parked' AND n.collection = p.collection AND n.id < p.id
        AND n.document_id IS NULL AND EXISTS (
          SELECT FROM pgdoc.dead_letters d
          WHERE d.consumer = n.consumer AND d.handler = n.handler AND d.state = 'dead' AND d.collection = n.collection AND d.id < n.id
            AND NOT EXISTS (SELECT FROM retried r WHERE r.id = d.id)))
    AND (p.document_id IS NOT NULL OR NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id
        AND NOT EXISTS (SELECT FROM retried r WHERE r.id = d.id)))
)
SELECT count(*) FROM retried

-- name: drop
-- What waited behind a letter that is dropped is due, as after one that was processed.
WITH dropped AS (
  DELETE FROM pgdoc.dead_letters
  WHERE (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
    AND (%(consumer)s::text IS NULL OR consumer = %(consumer)s::text)
    AND (%(handler)s::text IS NULL OR handler = %(handler)s::text)
    AND (%(state)s::text IS NULL OR state = %(state)s::text)
    AND (%(collection)s::text IS NULL OR collection = %(collection)s::text)
    AND (%(document_id)s::text IS NULL OR document_id = %(document_id)s::text)
  RETURNING id, consumer, handler
), released AS (
  UPDATE pgdoc.dead_letters AS p SET state = 'due'
  WHERE p.state = 'parked' AND NOT EXISTS (SELECT FROM dropped r WHERE r.id = p.id)
    AND EXISTS (SELECT FROM dropped r WHERE r.consumer = p.consumer AND r.handler = p.handler)
    AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id
        AND d.document_id = p.document_id
        AND NOT EXISTS (SELECT FROM dropped r WHERE r.id = d.id))
    AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id
        AND d.document_id IS NULL
        AND NOT EXISTS (SELECT FROM dropped r WHERE r.id = d.id))
    AND NOT EXISTS (
      SELECT FROM pgdoc.dead_letters n
      WHERE n.consumer = p.consumer AND n.handler = p.handler AND n.state = 'parked' AND n.collection = p.collection AND n.id < p.id
        AND n.document_id IS NULL AND NOT EXISTS (SELECT FROM dropped r WHERE r.id = n.id) AND EXISTS (
          SELECT FROM pgdoc.dead_letters d
          WHERE d.consumer = n.consumer AND d.handler = n.handler AND d.state = 'dead' AND d.collection = n.collection AND d.id < n.id
            AND NOT EXISTS (SELECT FROM dropped r WHERE r.id = d.id)))
    AND (p.document_id IS NOT NULL OR NOT EXISTS (
      SELECT FROM pgdoc.dead_letters d
      WHERE d.consumer = p.consumer AND d.handler = p.handler AND d.state = 'dead' AND d.collection = p.collection AND d.id < p.id
        AND NOT EXISTS (SELECT FROM dropped r WHERE r.id = d.id)))
)
SELECT count(*) FROM dropped
