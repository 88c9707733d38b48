-- What `worker.check()` asks the server.

-- name: rights
-- The rights that this role lacks on each of the tables.
SELECT wanted.name, ARRAY(
  SELECT needed.privilege FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed(privilege)
  WHERE NOT has_table_privilege(wanted.name, needed.privilege)) AS lacking
FROM unnest(%s::text[]) AS wanted(name)

-- name: free_slots
SELECT current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)::int

-- name: in_snapshot
-- The consumers that have not finished their snapshot.
SELECT c.name FROM pgdoc.consumers c LEFT JOIN pgdoc.consumer_progress p ON p.name = c.name
WHERE c.name = ANY (%s::text[]) AND c.place <> '{}'
  AND CASE WHEN p.acknowledged > c.place THEN p.snapshot ELSE c.snapshot END IS NOT NULL

-- name: handlers
SELECT consumer, handler FROM pgdoc.handlers WHERE consumer = ANY (%s::text[])

-- name: handlers_of_groups
-- The logs that the rows of each handler of a group belong to.
SELECT DISTINCT split_part(consumer, '#', 1), handler, log FROM pgdoc.handlers
WHERE log IS NOT NULL AND split_part(consumer, '#', 1) = ANY (%s::text[])

-- name: letters_of_groups
SELECT split_part(consumer, '#', 1), handler, state, count(*) FROM pgdoc.dead_letters
WHERE strpos(consumer, '#') > 0 AND split_part(consumer, '#', 1) = ANY (%s::text[])
GROUP BY 1, 2, 3

-- name: letters
SELECT consumer, handler, state, count(*) FROM pgdoc.dead_letters WHERE consumer = ANY (%s::text[])
GROUP BY consumer, handler, state
