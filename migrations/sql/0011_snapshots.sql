-- Snapshots of watched tables: the server prints the JSON of a row.

-- What returns the JSON of a column from `source`, as `json_of_value` of `row_json.py` makes it from the column's text. NULL for
-- an array whose elements have a type that is not PostgreSQL's own: `to_json` may write it in another way.
CREATE FUNCTION pgdoc.json_source(source text, type oid) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format(CASE
      WHEN b.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'json'::regtype, 'jsonb'::regtype) THEN 'coalesce(%1$s::text, ''null'')'
      WHEN b.oid = 'uuid'::regtype THEN 'coalesce(''"'' || %1$s::text || ''"'', ''null'')'
      WHEN b.oid = 'bool'::regtype THEN 'CASE WHEN %1$s THEN ''true'' WHEN NOT %1$s THEN ''false'' ELSE ''null'' END'
      WHEN b.oid < 10000 AND b.typtype IN ('b', 'r', 'm') THEN 'coalesce(to_json(%1$s)::text, ''null'')'
      WHEN pgdoc.type_form(type) NOT LIKE '%[%' THEN 'CASE WHEN num_nulls(%1$s) = 0 THEN to_json(format(''%%s'', %1$s))::text ELSE ''null'' END'
    END, source)
  FROM pg_type b WHERE b.oid = pgdoc.base_type(json_source.type)
$$;
COMMENT ON FUNCTION pgdoc.json_source IS 'SQL that returns the JSON of a column, for snapshots';

-- What returns a row from its columns, which are named `c1` and so on: see `read_table`. A function has at most 100 arguments.
CREATE FUNCTION pgdoc.row_source(relation regclass, document text) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH column_of AS (
    SELECT a.attnum, a.attname, format('c%s', a.attnum) AS source, pgdoc.json_source(format('c%s', a.attnum), a.atttypid) AS json,
      coalesce(a.attname = document, false) AS is_document
    FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  ), field AS (
    SELECT format('%L, %s', CASE place WHEN 1 THEN '{' ELSE ',' END || to_json(attname::text) || ':', json) AS text, place
    FROM (SELECT *, row_number() OVER (ORDER BY attnum) AS place FROM column_of WHERE NOT is_document) AS placed
  ), part AS (
    SELECT format('concat(%s)', string_agg(text, ', ' ORDER BY place)) AS text, min(place) AS place FROM field GROUP BY place / 40
  )
  SELECT CASE WHEN bool_and(json IS NOT NULL)
    THEN format('concat(%s, ''}''%s)', coalesce((SELECT string_agg(text, ', ' ORDER BY place) FROM part), '''{'''),
      (SELECT format(', E''\x01'', %s', json) FROM column_of WHERE is_document))
    ELSE format('to_json(ARRAY[%s])::text', string_agg(
      format('CASE WHEN num_nulls(%1$s) = 0 THEN format(''%%s'', %1$s) END', source), ', ' ORDER BY attnum))
    END
  FROM column_of
$$;
COMMENT ON FUNCTION pgdoc.row_source IS 'SQL that returns the JSON of a row, for snapshots';

-- The next rows of a watched table by its key, after the row with the key `after`; no result if there is no such table. `rows`
-- has the JSON object of each row. If the table has a document, that follows, after a byte that no JSON has. If a column has no
-- `json_source`, `rows` has arrays of the columns' texts, as their output functions return them under the settings of readers.
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
  printed text;
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
    string_agg(format(CASE WHEN pgdoc.base_type(a.atttypid) IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype,
        'uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
      THEN 'c%1$s::text' ELSE 'format(''%%s'', c%1$s)' END, a.attnum), ', ' ORDER BY k.place)
  INTO sorted, bounds, id
  FROM unnest(key) WITH ORDINALITY AS k(name, place) JOIN unnest(orders) WITH ORDINALITY AS o(kind, place) USING (place)
    JOIN pg_attribute a ON a.attrelid = relation AND a.attname = k.name AND NOT a.attisdropped;
  IF cardinality(key) > 1 THEN
    id := format('to_json(ARRAY[%s])::text', id);
  END IF;
  SELECT string_agg(format('t.%I AS c%s', a.attname, a.attnum), ', ' ORDER BY a.attnum),
    string_agg(CASE WHEN a.attlen > 0 THEN a.attlen::text ELSE format('coalesce(pg_column_size(t.%I), 0)', a.attname) END, ' + ')
  INTO named, sizes
  FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
  printed := pgdoc.row_source(relation, document);
  RETURN QUERY EXECUTE format($query$
    SELECT false, pg_current_snapshot()::text, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, clock_timestamp(),
      $4, $5, $6, $7, part.found, part.ids, part.rows
    FROM pg_logical_emit_message(true, 'pgdoc.snapshot', '') AS mark
    CROSS JOIN LATERAL (
      SELECT count(*) AS found, string_agg(textsend(id), decode('00', 'hex')) FILTER (WHERE fits) AS ids,
        string_agg(textsend(printed), decode('00', 'hex')) FILTER (WHERE fits) AS rows
      FROM (  -- the window takes the rows in the order of the page
        SELECT id, printed, may_fit AND coalesce(
          sum(octet_length(printed)) OVER (ROWS UNBOUNDED PRECEDING), 0) - coalesce(octet_length(printed), 0) < $3 AS fits
        FROM (
          SELECT may_fit, CASE WHEN may_fit THEN %1$s END AS id, CASE WHEN may_fit THEN %2$s END AS printed
          FROM (
            SELECT %3$s, sum(%4$s) OVER (ORDER BY %5$s ROWS UNBOUNDED PRECEDING) - (%4$s) < $3 AS may_fit
            FROM ONLY %6$s AS t %7$s ORDER BY %5$s LIMIT $2
          ) AS page OFFSET 0
        ) AS printed
      ) AS counted
    ) AS part
  $query$, id, printed, named, sizes, sorted, relation, CASE WHEN after IS NOT NULL THEN format('WHERE ROW(%s) > ROW(%s)', sorted, bounds) END)
  USING after, most, most_bytes, key, orders, document, columns;
END $$;
COMMENT ON FUNCTION pgdoc.read_table IS 'reads a part of the snapshot of a watched table';
