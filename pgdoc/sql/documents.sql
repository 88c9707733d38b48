-- Calls on a collection; {table} is its table. Inside a block with metadata, each write starts with `with_metadata` and
-- selects from it, which puts the metadata message before the change in the WAL. Otherwise {with_metadata} and
-- {from_metadata} are empty. With the cast of ids, a table with an id of another type is an error of the statement, not of
-- the parameter. {and_data} returns the stored id and data, if the call needs them: a trigger may have changed them. {guard} is the
-- block of that name, once in each statement. {text_of} is a function: pg_catalog.text, or pgdoc.readable_text, which returns
-- NULL for a document that PostgreSQL can't print. readable_time returns NULL for a time that Python doesn't have.

-- name: guard
-- PostgreSQL evaluates it when it plans the statement, so executing it costs nothing. Parsing the statement has locked the
-- table of this name, and a plan that is kept is made again after the table was replaced.
CASE WHEN '{table}'::pg_catalog.regclass::pg_catalog.oid OPERATOR(pg_catalog.=) '{oid}'::pg_catalog.oid
THEN true ELSE pgdoc.refuse_table('{table}') END

-- name: hold
-- COPY has no WHERE. This comes before it in the same transaction, and keeps the table until the end.
SELECT FROM {table} WHERE {guard} LIMIT 0

-- name: with_metadata
-- With a space in its name, it is never the name of a collection's table, which UPDATE and DELETE have beside it.
WITH "pgdoc metadata" AS MATERIALIZED (SELECT pg_logical_emit_message(true, 'pgdoc', %s))

-- name: emit
SELECT pg_logical_emit_message(true, 'pgdoc', %s)

-- name: publish
{with_metadata} SELECT pgdoc.publish(%s::text, %s::jsonb, %s::text) {from_metadata}

-- name: insert
{with_metadata} INSERT INTO {table} (id, data) SELECT %s, %s::jsonb {from_metadata} WHERE {guard}
ON CONFLICT (id) DO NOTHING
RETURNING {and_data} version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)

-- name: copy
COPY {table} (id, data) FROM STDIN (FORMAT binary)

-- name: get
SELECT {text_of}(data), version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at) FROM {table} WHERE {guard} AND id = %s::text

-- {change} is NULL if the update does not fit the document. No row is written then, or if nothing changes.
-- name: update
{with_metadata} UPDATE {table} SET data = {change} {from_metadata}
WHERE {guard} AND id = %s::text {and_version} AND ({change}) <> data
RETURNING id, {text_of}(data), version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)

-- name: check_update
SELECT {text_of}(data), version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at),
  ({change}) IS NOT NULL, ({change}) = data
FROM {table} WHERE {guard} AND id = %s::text

-- {change} refers to `data`, which is ambiguous in ON CONFLICT; the subquery makes it the stored row's.
-- name: upsert
{with_metadata} INSERT INTO {table} AS stored (id, data) SELECT %s, {first} {from_metadata} WHERE {guard}
ON CONFLICT (id) DO UPDATE SET data = (SELECT {change} FROM (SELECT stored.data) AS old(data))
WHERE (SELECT {change} FROM (SELECT stored.data) AS old(data)) <> stored.data
RETURNING id, {text_of}(data), version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)

-- For a bulk write, which returns no documents. A document that the update does not fit is written as a replacement by
-- itself and returned for the error message; the error then rolls back the transaction. OFFSET 0 keeps the planner from
-- duplicating {change}.
-- name: bulk_upsert
{with_metadata} INSERT INTO {table} AS stored (id, data) SELECT %s, {first} {from_metadata} WHERE {guard}
ON CONFLICT (id) DO UPDATE SET (data, replaced_version) = (
  SELECT coalesce(after, stored.data), CASE WHEN after IS NULL THEN stored.version + 1 ELSE stored.replaced_version END
  FROM (SELECT {change} AS after FROM (SELECT stored.data) AS old(data) OFFSET 0) AS new
)
WHERE ((SELECT {change} FROM (SELECT stored.data) AS old(data)) = stored.data) IS NOT TRUE
RETURNING version, CASE WHEN version > 1 AND replaced_version = version THEN coalesce({text_of}(data), '') END

-- For an unordered bulk: a document that the update does not fit stays as it is, and the look after it finds out.
-- name: apart_upsert
{with_metadata} INSERT INTO {table} AS stored (id, data) SELECT %s, {first} {from_metadata} WHERE {guard}
ON CONFLICT (id) DO UPDATE SET data = (SELECT {change} FROM (SELECT stored.data) AS old(data))
WHERE (SELECT {change} FROM (SELECT stored.data) AS old(data)) <> stored.data
RETURNING version

-- name: apart_look
SELECT CASE WHEN after IS NULL THEN coalesce({text_of}(data), '') END, after = data
FROM (SELECT data, {change} AS after FROM {table} WHERE {guard} AND id = %s::text OFFSET 0) AS found

-- name: replace
{with_metadata} UPDATE {table} SET data = %s::jsonb, replaced_version = version + 1 {from_metadata}
WHERE {guard} AND id = %s::text {and_version}
RETURNING {and_data} version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)

-- name: replace_upsert
{with_metadata} INSERT INTO {table} AS stored (id, data) SELECT %s, %s::jsonb {from_metadata} WHERE {guard}
ON CONFLICT (id) DO UPDATE SET data = excluded.data, replaced_version = stored.version + 1
RETURNING {and_data} version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)

-- name: delete
{with_metadata} DELETE FROM {table} {using_metadata} WHERE {guard} AND id = %s::text {and_version}
RETURNING true

-- name: version
SELECT version, created_at FROM {table} WHERE {guard} AND id = %s::text

-- What can keep a write from a row of the table without an error, by name.
-- name: obstacles
SELECT 'the trigger ' || quote_ident(t.tgname)
FROM pg_trigger t
WHERE (t.tgrelid = '{table}'::regclass OR t.tgrelid = ANY (ARRAY(SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = '{table}'::regclass))) AND {guard} AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 3 = 3
  AND t.tgfoid <> 'pgdoc.before_update'::regproc
UNION ALL
SELECT CASE WHEN c.relhasrules THEN 'the rules of the table' ELSE 'the row-level security of the table' END
FROM pg_class c WHERE c.oid = '{table}'::regclass AND (c.relrowsecurity OR c.relhasrules)

-- name: lock
SELECT version FROM {table} WHERE {guard} AND id = %s::text FOR NO KEY UPDATE

-- The first matching document, locked. {first} of write_first and delete_one is a single `first_match`, or the first of
-- several.
-- name: first_match
SELECT id, data, version, created_at, updated_at FROM {table} WHERE {condition} {order} LIMIT 1 {lock}

-- Locks the rows first, ordered by id, so that concurrent calls do not deadlock. A row that changed before it was locked is
-- matched again, and {change} is computed from its new data. If the update does not fit one document, nothing is written.
-- {matched} is how many documents match, or NULL.
-- name: update_many
{with_metadata_and} locked AS MATERIALIZED (
  SELECT id, after, CASE WHEN after IS NULL THEN {text_of}(data) END AS misfit
  FROM (
    SELECT id, data, {change} AS after FROM {table}
    WHERE {guard} AND ({condition}) AND (({change}) = data) IS NOT TRUE ORDER BY id FOR NO KEY UPDATE
  ) AS candidate
), changed AS (
  UPDATE {table} AS stored SET data = locked.after FROM locked {and_metadata}
  WHERE stored.id = locked.id AND NOT EXISTS (SELECT FROM locked WHERE after IS NULL)
  RETURNING true
)
SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM locked), id, misfit, {matched}
FROM (VALUES (true)) AS always LEFT JOIN (SELECT id, misfit FROM locked WHERE after IS NULL LIMIT 1) AS first ON true

-- Changes or replaces the first matching document. {set}, {differs}, {insertion} and {result} are blocks that follow; those
-- about the insertion are only for an upsert. {change} is the new data, NULL if the update does not fit.
-- name: write_first
{with_metadata_and} candidate AS MATERIALIZED (
  SELECT id, data, version, created_at, updated_at, {change} AS after FROM ({first}) AS first WHERE {guard}
), changed AS (
  UPDATE {table} AS stored {set} FROM candidate {and_metadata}
  WHERE stored.id = candidate.id AND {differs}
  RETURNING stored.id, {text_of}(stored.data), stored.version, pgdoc.readable_time(stored.created_at),
    pgdoc.readable_time(stored.updated_at)
) {insertion} {result}

-- name: update_one_set
SET data = candidate.after

-- name: update_one_differs
candidate.after <> candidate.data

-- name: replace_one_set
SET data = candidate.after, replaced_version = stored.version + 1

-- name: replace_one_differs
true

-- The document that an upsert creates if none matches. No row means that a document with its id or, if {conflict} is empty,
-- with the values of a unique index exists, which this statement did not see or the filter does not match.
-- name: insertion
, inserted AS (
  INSERT INTO {table} (id, data) SELECT %s, {seed} {from_metadata} WHERE NOT EXISTS (SELECT FROM candidate)
  ON CONFLICT {conflict} DO NOTHING
  RETURNING id, {text_of}(data), version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)
)

-- The first column: whether the update fits the document; NULL if the server did not write the row.
-- name: result_after
SELECT true, changed.* FROM changed
UNION ALL
SELECT CASE WHEN after IS NULL THEN false WHEN NOT ({differs}) THEN true END, id, {text_of}(data), version,
  pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)
FROM candidate WHERE ({differs}) IS NOT TRUE OR NOT EXISTS (SELECT FROM changed)
{inserted}

-- name: inserted_after
UNION ALL SELECT true, inserted.* FROM inserted

-- name: result_before
SELECT CASE WHEN after IS NULL THEN false WHEN NOT ({differs}) OR EXISTS (SELECT FROM changed) THEN true END, id,
  {text_of}(data), version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)
FROM candidate
{inserted}

-- There is no document before the insert.
-- name: inserted_before
UNION ALL SELECT true, NULL, NULL, NULL, NULL, NULL FROM inserted

-- For a bulk write. {inserted} is `inserted_counts`, or 0.
-- No row means that nothing matched, and nothing was inserted.
-- name: result_counts
SELECT (SELECT count(*) FROM candidate), (SELECT count(*) FROM candidate WHERE {differs}), (SELECT count(*) FROM changed),
  {inserted}, id, misfit
FROM (VALUES (true)) AS always
LEFT JOIN (SELECT id, {text_of}(data) AS misfit FROM candidate WHERE after IS NULL) AS first ON true
WHERE EXISTS (SELECT FROM candidate) OR {inserted} > 0

-- name: inserted_counts
(SELECT count(*) FROM inserted)

-- The last attempt of an upsert: a plain insert, whose error names the unique index.
-- name: insert_first
{with_metadata} INSERT INTO {table} (id, data) SELECT %s, {first} {from_metadata} WHERE {guard}
ON CONFLICT (id) DO NOTHING
RETURNING id, {text_of}(data), version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at)

-- name: delete_many
{with_metadata_and} locked AS MATERIALIZED (SELECT id FROM {table} WHERE {guard} AND ({condition}) ORDER BY id FOR UPDATE),
deleted AS (DELETE FROM {table} AS stored USING locked {and_metadata} WHERE stored.id = locked.id RETURNING true)
SELECT count(*) FROM deleted

-- name: delete_one
{with_metadata_and} candidate AS MATERIALIZED (SELECT id FROM ({first}) AS first WHERE {guard}), deleted AS (
  DELETE FROM {table} AS stored USING candidate {and_metadata} WHERE stored.id = candidate.id
  RETURNING stored.id, {text_of}(stored.data), stored.version, pgdoc.readable_time(stored.created_at),
    pgdoc.readable_time(stored.updated_at)
)
SELECT true, deleted.* FROM deleted
UNION ALL
SELECT false, id, NULL, NULL, NULL, NULL FROM candidate WHERE NOT EXISTS (SELECT FROM deleted)
