-- What `pgdoc metrics` reads.

ALTER TABLE pgdoc.consumers ADD COLUMN recreated bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgdoc.consumers.recreated IS 'how often the position was lost, and the consumer began again without the events before';

-- Members of pg_monitor execute it with the rights of the catalog's owner: the tables contain ids of documents, in `snapshot`,
-- which this leaves out. A consumer that is still being created has no place, and is left out, too.
CREATE FUNCTION pgdoc.consumer_metrics()
RETURNS TABLE (name text, schema_name text, created_at timestamptz, recreated bigint, place_lsn bigint, waiting_since timestamptz,
  seen_at timestamptz, unreadable bigint, owner_pid integer, owner_start timestamptz, renewed_at timestamptz, ttl interval,
  needs_lease boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.name, c.schema_name, c.created_at, c.recreated, found.lsn, p.waiting_since, p.seen_at,
    (SELECT count(*) FROM pgdoc.unreadable u
     WHERE u.consumer = c.name AND u.skipped_at IS NULL AND (u.commit_lsn - '0/0'::pg_lsn)::bigint >= found.lsn),
    o.pid, o.backend_start, o.renewed_at, o.ttl, o.needs_lease
  FROM pgdoc.consumers c
    LEFT JOIN pgdoc.consumer_progress p ON p.name = c.name
    LEFT JOIN pgdoc.owners o ON o.name = c.name
    CROSS JOIN LATERAL (SELECT (greatest(c.place, p.acknowledged))[1]) AS found(lsn)
  WHERE c.place <> '{}'
$$;
COMMENT ON FUNCTION pgdoc.consumer_metrics IS 'the state of each durable consumer, without what it has read, for members of pg_monitor';
