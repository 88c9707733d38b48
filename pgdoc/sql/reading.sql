-- Reads of many documents of a collection; {table} is its table, {guard} and {text_of} as in `documents.sql`. {rows} is the table, with
-- {and_condition}, or the union of one `branch` per condition.

-- name: matching
{table} WHERE {condition}

-- name: branch
(SELECT id, data, version, created_at, updated_at FROM {rows} {ordered})

-- name: find
SELECT id, {text_of}({fields}), version, pgdoc.readable_time(created_at), pgdoc.readable_time(updated_at) FROM {rows}
WHERE {guard} {and_condition} {order} {numbers}

-- name: count
SELECT count(*) FROM {rows} WHERE {guard} {and_condition}

-- name: totals
-- By the JSON value {group}: the documents, and of {value}, how many are numbers, and their sum.
SELECT {text_of}(grouped), count(*), count(number), sum(number)
FROM (SELECT coalesce({group}, 'null') AS grouped, CASE WHEN jsonb_typeof({value}) = 'number' THEN ({value})::numeric END AS number
  FROM {rows} WHERE {guard} {and_condition}) AS counted
GROUP BY grouped

-- name: distinct
SELECT {text_of}(value)
FROM (SELECT DISTINCT value FROM {table} CROSS JOIN LATERAL {values} AS found(value)
  WHERE {guard} AND ({condition})) AS every
ORDER BY pgdoc.sort_key(value) COLLATE "C", pgdoc.sort_rest(value) COLLATE "C" NULLS FIRST

-- name: distinct_collated
-- Of values that are equal under the collation, the first by code point.
SELECT {text_of}(value)
FROM (SELECT DISTINCT ON (compared) compared, value
  FROM (SELECT DISTINCT value, pgdoc.collated(value, '{collation}') AS compared
    FROM {table} CROSS JOIN LATERAL {values} AS found(value) WHERE {guard} AND ({condition})) AS every
  ORDER BY compared, pgdoc.sort_key(value) COLLATE "C", pgdoc.sort_rest(value) COLLATE "C" NULLS FIRST) AS different
ORDER BY pgdoc.sort_key(compared) COLLATE "C", pgdoc.sort_rest(compared) COLLATE "C" NULLS FIRST
