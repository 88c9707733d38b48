CREATE OR REPLACE FUNCTION pgdoc.published_since(in_schema text, names text[]) RETURNS pg_lsn LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(max(p.since), '0/0') FROM pgdoc.published p
  WHERE (p.name = '' OR pgdoc.is_wanted(in_schema, names, p.schema_name, p.name, false)
      OR pgdoc.is_wanted(in_schema, names, p.schema_name, p.name, true))
    AND p.since <= pg_current_wal_insert_lsn()
$$;
