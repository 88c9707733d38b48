-- Reverts 0008_updates.sql.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE OR REPLACE FUNCTION pgdoc.refuse_table(schema_and_name text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'table % is not the collection that it was', schema_and_name USING ERRCODE = 'PGD02';
END $$;

DROP FUNCTION pgdoc.change_tree(jsonb, jsonb, jsonb), pgdoc.change_value(jsonb, jsonb, jsonb);

CREATE OR REPLACE FUNCTION pgdoc.add_to_set_at(data jsonb, path text[], items jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found pg_catalog.jsonb := coalesce(pgdoc.value_at(data, path), '[]');
BEGIN
    IF pg_catalog.jsonb_typeof(found) OPERATOR(pg_catalog.<>) 'array' THEN
        RETURN NULL;
    END IF;
    RETURN pgdoc.set_at(data, path, found OPERATOR(pg_catalog.||) (
        SELECT coalesce(pg_catalog.jsonb_agg(item ORDER BY place), '[]')
        FROM (SELECT DISTINCT ON (item) item, place
              FROM pg_catalog.jsonb_array_elements(items) WITH ORDINALITY AS given(item, place)
              ORDER BY item, place) AS new
        WHERE item OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT pg_catalog.jsonb_array_elements(found)))
    ));
END
$$;

DROP FUNCTION pgdoc.new_items(jsonb, jsonb);

CREATE OR REPLACE FUNCTION pgdoc.pull_all_at(data jsonb, path text[], pulled jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pgdoc.keep_at(data, path, (
        SELECT coalesce(jsonb_agg(item ORDER BY place), '[]')
        FROM pgdoc.items_at(data, path) WITH ORDINALITY AS found(item, place)
        WHERE item <> ALL (ARRAY(SELECT jsonb_array_elements(pulled)))
    ));
