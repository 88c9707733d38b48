-- Functions of the update language, in addition to those of 0001. As there, a function returns NULL if the change does not
-- fit the data or the data is already NULL.

CREATE FUNCTION pgdoc.transaction_time() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
COMMENT ON FUNCTION pgdoc.transaction_time IS 'The start time of the transaction, as $currentDate stores it: ISO 8601, UTC';

-- A number of more than 4,300 digits does not fit: Python refuses to parse it.
CREATE OR REPLACE FUNCTION pgdoc.increment_at(data jsonb, path text[], amount numeric) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found jsonb := pgdoc.value_at(data, path);
    total numeric;
BEGIN
    IF found IS NULL THEN
        RETURN pgdoc.set_at(data, path, to_jsonb(amount));
    ELSIF jsonb_typeof(found) = 'number' THEN
        total := found::numeric + amount;
        RETURN CASE WHEN abs(total) < 1e4300 THEN jsonb_set(data, path, to_jsonb(total)) END;
    END IF;
    RETURN NULL;
END
$$;

-- A product has as many decimal places as its factors together, so repeated multiplication would grow the document without
-- this limit.
CREATE FUNCTION pgdoc.multiply_at(data jsonb, path text[], factor numeric) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found jsonb := pgdoc.value_at(data, path);
    product numeric;
    places integer;
BEGIN
    IF found IS NULL THEN
        RETURN pgdoc.set_at(data, path, '0');
    ELSIF jsonb_typeof(found) = 'number' THEN
        product := found::numeric * factor;
        places := greatest(400, scale(found::numeric), scale(factor));
        IF scale(product) > places THEN
            product := round(product, places);
        END IF;
        RETURN CASE WHEN abs(product) < 1e4300 THEN jsonb_set(data, path, to_jsonb(product)) END;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgdoc.multiply_at IS 'The data with the number at the path multiplied; NULL if it does not fit';

CREATE FUNCTION pgdoc.bound_at(data jsonb, path text[], value jsonb, sign integer) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found jsonb := pgdoc.value_at(data, path);
BEGIN
    IF found IS NOT NULL AND pgdoc.compare(value, found) <> sign THEN
        RETURN data;
    END IF;
    RETURN pgdoc.set_at(data, path, value);
END
$$;
COMMENT ON FUNCTION pgdoc.bound_at IS
    'The data with the value set at the path if it is less (sign -1) or greater (1) than the present value, or there is none';

CREATE FUNCTION pgdoc.rename_at(data jsonb, path text[], target text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    node jsonb := data;
    there jsonb;
    in_array boolean := false;
BEGIN
    FOR i IN 1 .. cardinality(path) LOOP
        IF jsonb_typeof(node) = 'array' AND path[i] ~ '^(0|[1-9][0-9]{0,8})$' THEN
            in_array := true;
        ELSIF jsonb_typeof(node) <> 'object' THEN
            RETURN NULL;
        END IF;
        node := pgdoc.child(node, path[i]);
        IF node IS NULL THEN
            RETURN data;
        END IF;
    END LOOP;
    IF in_array THEN
        RETURN NULL;
    END IF;
    data := data #- path;
    there := data;
    FOR i IN 1 .. cardinality(target) LOOP
        IF jsonb_typeof(there) = 'array' THEN
            RETURN NULL;
        END IF;
        there := pgdoc.child(there, target[i]);
    END LOOP;
    RETURN pgdoc.set_at(data, target, node);
END
$$;
COMMENT ON FUNCTION pgdoc.rename_at IS
    'The data with the value moved to the target; NULL if a path goes through an array or does not fit';

-- ROWS 10: PostgreSQL assumes 1,000 rows otherwise, and JIT compilation of such a plan takes longer than running it.
CREATE FUNCTION pgdoc.items_at(data jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 10
AS $$
    SELECT jsonb_array_elements(CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE '[]' END)
    FROM pgdoc.value_at(data, path) AS found(value)
$$;
COMMENT ON FUNCTION pgdoc.items_at IS 'The items of the array at the path; no rows if there is no array';

CREATE FUNCTION pgdoc.put_items(data jsonb, path text[], items jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN jsonb_typeof(pgdoc.value_at(data, path)) = 'array' THEN jsonb_set(data, path, items) END;
COMMENT ON FUNCTION pgdoc.put_items IS 'The data with the array at the path replaced by these items; NULL if there is no array';

CREATE FUNCTION pgdoc.could_be_at(data jsonb, path text[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    next jsonb;
BEGIN
    FOR i IN 1 .. cardinality(path) LOOP
        next := pgdoc.child(data, path[i]);
        IF next IS NULL THEN
            RETURN jsonb_typeof(data) = 'object'
                OR jsonb_typeof(data) = 'array' AND path[i] ~ '^(0|[1-9][0-9]{0,8})$';
        END IF;
        data := next;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgdoc.could_be_at IS 'Whether there is a value at the path, or set_at could create one';

CREATE FUNCTION pgdoc.keep_at(data jsonb, path text[], items jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE
        WHEN pgdoc.value_at(data, path) IS NOT NULL THEN pgdoc.put_items(data, path, items)
        WHEN pgdoc.could_be_at(data, path) THEN data
    END;
COMMENT ON FUNCTION pgdoc.keep_at IS 'Like put_items, but returns the data unchanged if the path is missing and set_at could create it';

CREATE FUNCTION pgdoc.pull_all_at(data jsonb, path text[], pulled jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pgdoc.keep_at(data, path, (
        SELECT coalesce(jsonb_agg(item ORDER BY place), '[]')
        FROM pgdoc.items_at(data, path) WITH ORDINALITY AS found(item, place)
        WHERE item <> ALL (ARRAY(SELECT jsonb_array_elements(pulled)))
    ));
COMMENT ON FUNCTION pgdoc.pull_all_at IS 'The data without the items that equal one of these; NULL if there is no array';

CREATE FUNCTION pgdoc.pop_at(data jsonb, path text[], first boolean) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pgdoc.keep_at(data, path, CASE jsonb_typeof(pgdoc.value_at(data, path))
        WHEN 'array' THEN pgdoc.value_at(data, path) - CASE WHEN first THEN 0 ELSE -1 END
        ELSE '[]'
    END);
COMMENT ON FUNCTION pgdoc.pop_at IS 'The data without the first or last item of the array; NULL if there is no array';

CREATE FUNCTION pgdoc.add_to_set_at(data jsonb, path text[], items jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found jsonb := coalesce(pgdoc.value_at(data, path), '[]');
BEGIN
    IF jsonb_typeof(found) <> 'array' THEN
        RETURN NULL;
    END IF;
    RETURN pgdoc.set_at(data, path, found || (
        SELECT coalesce(jsonb_agg(item ORDER BY place), '[]')
        FROM (SELECT DISTINCT ON (item) item, place
              FROM jsonb_array_elements(items) WITH ORDINALITY AS given(item, place)
              ORDER BY item, place) AS new
        WHERE item <> ALL (ARRAY(SELECT jsonb_array_elements(found)))
    ));
END
$$;
COMMENT ON FUNCTION pgdoc.add_to_set_at IS 'The data with the items added that the array lacks; NULL if it does not fit';

CREATE TYPE pgdoc.sort_part AS (rank integer, number numeric, text text COLLATE "C");
COMMENT ON TYPE pgdoc.sort_part IS 'One element of the result of sort_parts; rank 0 ends an array or object';

-- Each value starts with its rank, and arrays and objects end with rank 0, so PostgreSQL orders these arrays as
-- pgdoc.compare orders the values.
CREATE FUNCTION pgdoc.sort_parts(value jsonb) RETURNS pgdoc.sort_part[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    kind text := jsonb_typeof(value);
    parts pgdoc.sort_part[] := ARRAY[ROW(
        pgdoc.type_rank(value),
        CASE kind WHEN 'number' THEN value::numeric WHEN 'boolean' THEN value::boolean::integer END,
        CASE kind WHEN 'string' THEN value #>> '{}' END)::pgdoc.sort_part];
    name text;
    item jsonb;
BEGIN
    IF kind = 'array' THEN
        FOR item IN SELECT jsonb_array_elements(value) LOOP
            parts := parts || pgdoc.sort_parts(item);
        END LOOP;
    ELSIF kind = 'object' THEN
        FOR name, item IN SELECT * FROM jsonb_each(value) AS field(key, inner_value) ORDER BY key COLLATE "C" LOOP
            parts := parts || ROW(pgdoc.type_rank(item), NULL, name)::pgdoc.sort_part || pgdoc.sort_parts(item);
        END LOOP;
    ELSE
        RETURN parts;
    END IF;
    RETURN parts || ROW(0, NULL, NULL)::pgdoc.sort_part;
END
$$;
COMMENT ON FUNCTION pgdoc.sort_parts IS 'An array that sorts as pgdoc.compare sorts the value';

CREATE FUNCTION pgdoc.sorted_items(items jsonb[], path text[], descending boolean) RETURNS jsonb[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT coalesce(array_agg(item ORDER BY CASE WHEN NOT descending THEN parts END,
                                            CASE WHEN descending THEN parts END DESC, place), '{}')
    FROM (SELECT item, place, pgdoc.sort_parts(coalesce(CASE
              WHEN cardinality(path) = 0 THEN item
              WHEN jsonb_typeof(item) = 'object' THEN pgdoc.value_at(item, path)
          END, 'null')) AS parts
          FROM unnest(items) WITH ORDINALITY AS given(item, place)) AS keyed
$$;
COMMENT ON FUNCTION pgdoc.sorted_items IS 'The items sorted by the value at a path; the sort is stable, and an item without that path sorts as null';

-- Not STRICT: place ($position) and size ($slice) are NULL if not given.
CREATE FUNCTION pgdoc.push_at(data jsonb, path text[], items jsonb, place integer, sort jsonb, size integer) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    found jsonb := coalesce(pgdoc.value_at(data, path), '[]');
    result jsonb[];
    sort_key jsonb;
BEGIN
    IF data IS NULL OR jsonb_typeof(found) <> 'array' THEN
        RETURN NULL;
    ELSIF place IS NULL AND sort = '[]' AND size IS NULL THEN
        RETURN pgdoc.set_at(data, path, found || items);
    END IF;
    result := ARRAY(SELECT jsonb_array_elements(found));
    place := CASE WHEN place < 0 THEN greatest(place + cardinality(result), 0)
                  ELSE least(place, cardinality(result)) END;
    result := result[:place] || ARRAY(SELECT jsonb_array_elements(items)) || result[place + 1:];
    FOR i IN REVERSE jsonb_array_length(sort) - 1 .. 0 LOOP
        sort_key := sort -> i;
        result := pgdoc.sorted_items(
            result, ARRAY(SELECT jsonb_array_elements_text(sort_key -> 'path')), (sort_key -> 'descending')::boolean);
    END LOOP;
    IF size < 0 THEN
        result := result[greatest(cardinality(result) + size, 0) + 1:];
    ELSIF size < cardinality(result) THEN
        result := result[:size];
    END IF;
    RETURN pgdoc.set_at(data, path, to_jsonb(result));
END
$$;
COMMENT ON FUNCTION pgdoc.push_at IS 'The data with the items inserted into the array, which is then sorted and cut; NULL if it does not fit';
