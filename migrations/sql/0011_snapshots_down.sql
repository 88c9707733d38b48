-- Reverts 0011_snapshots.sql.
-- The next rows of a watched table by its key, after the row with the key `after`; no result if there is no such table. `rows`
-- has the columns of each row as a JSON array of texts, as their output functions return them under the settings of readers.
-- See `part` of streams.sql for the limits, and for what else is returned.
CREATE OR REPLACE FUNCTION pgdoc.read_table(in_schema text, in_name text, after text[], most int, most_bytes bigint)
RETURNS TABLE (hides_rows boolean, seen text, end_lsn bigint, read_at timestamptz, key text[], orders text[], document text, columns text,
  found bigint, ids bytea, rows bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' SET intervalstyle = 'iso_8601'
SET bytea_output = 'hex' SET extra_float_digits = 1 SET quote_all_identifiers = off SET lc_monetary = 'C' SET synchronous_commit = local
AS $$
DECLARE
  relation regclass := to_regclass(format('%I.%I', in_schema, in_name));
  sorted text;  -- what the rows are sorted by
  bounds text;
  id text;
  named text;
  texts text;
  sizes text;
BEGIN
  IF relation IS NULL THEN
    RETURN;
  END IF;
  EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', relation);  -- its columns stay
  SELECT r.document INTO document FROM pgdoc.registry r
  WHERE r.oid = relation AND r.until IS NULL AND r.kind = 'table' AND r.schema_name = in_schema AND r.name = in_name;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  hides_rows := row_security_active(relation);  -- it stays like this: policies are switched on under ACCESS EXCLUSIVE
  IF hides_rows THEN  -- a policy is code of the table's owner, which the reader does not run
    RETURN NEXT;
    RETURN;
  END IF;
  key := pgdoc.table_key(relation);
  orders := pgdoc.key_orders(relation);
  columns := pgdoc.table_columns(relation)::text;
  IF cardinality(after) <> cardinality(key) THEN
    RAISE EXCEPTION 'the primary key of table % has changed', relation USING ERRCODE = 'PGD05', HINT = 'begin the snapshot again';
  END IF;
  -- The check of a domain is code of the table's owner: a cast to it would run that with the rights of the reader.
  SELECT string_agg(format(CASE
      WHEN o.kind <> 'printed' THEN 't.%I'
      WHEN a.atttypid IN ('text'::regtype, 'varchar'::regtype) THEN 't.%I COLLATE "C"'
      ELSE 'format(''%%s'', t.%I) COLLATE "C"'
    END, k.name), ', ' ORDER BY k.place),
    string_agg(format('$1[%s]::%s', k.place,
      CASE o.kind WHEN 'printed' THEN 'text' ELSE format_type(pgdoc.base_type(a.atttypid), NULL) END), ', ' ORDER BY k.place),
    string_agg(format('format(''%%s'', c%s)', a.attnum), ', ' ORDER BY k.place)
  INTO sorted, bounds, id
  FROM unnest(key) WITH ORDINALITY AS k(name, place) JOIN unnest(orders) WITH ORDINALITY AS o(kind, place) USING (place)
    JOIN pg_attribute a ON a.attrelid = relation AND a.attname = k.name AND NOT a.attisdropped;
  IF cardinality(key) > 1 THEN
    id := format('to_json(ARRAY[%s])::text', id);
  END IF;
  SELECT string_agg(format('t.%I AS c%s', a.attname, a.attnum), ', ' ORDER BY a.attnum),
    string_agg(format('CASE WHEN num_nulls(c%1$s) = 0 THEN format(''%%s'', c%1$s) END', a.attnum), ', ' ORDER BY a.attnum),
    string_agg(format('coalesce(pg_column_size(t.%I), 0)', a.attname), ' + ' ORDER BY a.attnum)
  INTO named, texts, sizes
  FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
  RETURN QUERY EXECUTE format($query$
    SELECT false, pg_current_snapshot()::text, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, clock_timestamp(),
      $4, $5, $6, $7, part.found, part.ids, part.rows
    FROM pg_logical_emit_message(true, 'pgdoc.snapshot', '') AS mark
    CROSS JOIN LATERAL (
      SELECT count(*) AS found, string_agg(textsend(id), '\x00'::bytea ORDER BY place) FILTER (WHERE fits) AS ids,
        string_agg(textsend(printed), '\x00'::bytea ORDER BY place) FILTER (WHERE fits) AS rows
      FROM (
        SELECT place, id, printed, may_fit AND coalesce(
          sum(octet_length(printed)) OVER (ORDER BY place ROWS UNBOUNDED PRECEDING), 0) - coalesce(octet_length(printed), 0) < $3 AS fits
        FROM (
          SELECT place, may_fit, CASE WHEN may_fit THEN %1$s END AS id, CASE WHEN may_fit THEN to_json(ARRAY[%2$s])::text END AS printed
          FROM (
            SELECT page.*, sum(size) OVER (ORDER BY place ROWS UNBOUNDED PRECEDING) - size < $3 AS may_fit
            FROM (
              SELECT %3$s, %4$s AS size, row_number() OVER (ORDER BY %5$s) AS place
              FROM ONLY %6$s AS t %7$s ORDER BY %5$s LIMIT $2
            ) AS page
          ) AS measured ORDER BY place OFFSET 0
        ) AS printed
      ) AS counted
    ) AS part
  $query$, id, texts, named, sizes, sorted, relation, CASE WHEN after IS NOT NULL THEN format('WHERE ROW(%s) > ROW(%s)', sorted, bounds) END)
  USING after, most, most_bytes, key, orders, document, columns;
END $$;
COMMENT ON FUNCTION pgdoc.read_table IS 'reads a part of the snapshot of a watched table';
DROP FUNCTION pgdoc.row_source(regclass, text), pgdoc.json_source(text, oid);
