-- Projections with $slice, $elemMatch and positions, and their computed fields.

CREATE FUNCTION pgdoc.slice(value jsonb, skip integer, size integer) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    length pg_catalog.int8;
    first pg_catalog.int8;
BEGIN
    IF (pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array') IS NOT TRUE THEN
        RETURN value;
    END IF;
    length := pg_catalog.jsonb_array_length(value);
    first := CASE
        WHEN skip OPERATOR(pg_catalog.>=) 0 THEN skip
        WHEN skip IS NOT NULL THEN greatest(length OPERATOR(pg_catalog.+) skip, 0)
        WHEN size OPERATOR(pg_catalog.<) 0 THEN greatest(length OPERATOR(pg_catalog.+) size, 0)
        ELSE 0
    END;
    -- An expression, unlike a query, takes a microsecond. In lax mode, the last index may be beyond the end.
    RETURN pg_catalog.jsonb_path_query_array(value, '$[$first to $last]', pg_catalog.jsonb_build_object(
        'first', first,
        'last', least(length, first OPERATOR(pg_catalog.+) pg_catalog.abs(size::bigint)) OPERATOR(pg_catalog.-) 1));
END
$$;
COMMENT ON FUNCTION pgdoc.slice IS
    'The first items of an array, or with a negative size the last ones, or the items after those to skip; any other value as it is';

CREATE OR REPLACE FUNCTION pgdoc.include(value jsonb, fields jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
BEGIN
    IF fields OPERATOR(pg_catalog.=) 'true' THEN
        RETURN value;
    ELSIF pg_catalog.jsonb_typeof(fields) OPERATOR(pg_catalog.=) 'array' THEN
        RETURN pgdoc.slice(
            value, (fields OPERATOR(pg_catalog.->>) 0)::integer, (fields OPERATOR(pg_catalog.->>) 1)::integer);
    ELSIF kind OPERATOR(pg_catalog.=) 'object' THEN
        RETURN (
            SELECT coalesce(pg_catalog.jsonb_object_agg(key, part) FILTER (WHERE part IS NOT NULL), '{}')
            FROM (SELECT key, CASE WHEN below OPERATOR(pg_catalog.=) 'true' THEN value OPERATOR(pg_catalog.->) key
                    ELSE pgdoc.include(value OPERATOR(pg_catalog.->) key, below) END
                FROM pg_catalog.jsonb_each(fields) AS field(key, below))
                AS parts(key, part)
        );
    ELSIF kind OPERATOR(pg_catalog.=) 'array'
        AND value OPERATOR(pg_catalog.@?) 'strict $[*] ? (@.type() == "array")'
        AND value OPERATOR(pg_catalog.@?) '$.**{260}' THEN
        RETURN value;  -- nested deeper than pgdoc allows: it could exceed the stack
    ELSIF kind OPERATOR(pg_catalog.=) 'array' THEN
        RETURN (
            SELECT coalesce(pg_catalog.jsonb_agg(part ORDER BY place) FILTER (WHERE part IS NOT NULL), '[]')
            FROM (SELECT place, pgdoc.include(item, fields)
                  FROM pg_catalog.jsonb_array_elements(value) WITH ORDINALITY AS each(item, place)) AS parts(place, part)
        );
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgdoc.include IS
    'The value with only the named fields, a tree with true or a slice at its leaves; applies to each item of an array';

CREATE OR REPLACE FUNCTION pgdoc.exclude(value jsonb, fields jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
BEGIN
    IF fields IS NULL THEN
        RETURN value;
    ELSIF pg_catalog.jsonb_typeof(fields) OPERATOR(pg_catalog.=) 'array' THEN
        RETURN pgdoc.slice(
            value, (fields OPERATOR(pg_catalog.->>) 0)::integer, (fields OPERATOR(pg_catalog.->>) 1)::integer);
    ELSIF kind OPERATOR(pg_catalog.=) 'object' THEN
        RETURN (
            SELECT coalesce(pg_catalog.jsonb_object_agg(key, pgdoc.exclude(part, fields OPERATOR(pg_catalog.->) key)), '{}')
            FROM pg_catalog.jsonb_each(value) AS each(key, part)
            WHERE (fields OPERATOR(pg_catalog.->) key OPERATOR(pg_catalog.=) 'true') IS NOT TRUE
        );
    ELSIF kind OPERATOR(pg_catalog.=) 'array'
        AND value OPERATOR(pg_catalog.@?) 'strict $[*] ? (@.type() == "array")'
        AND value OPERATOR(pg_catalog.@?) '$.**{260}' THEN
        RETURN value;  -- nested deeper than pgdoc allows: it could exceed the stack
    ELSIF kind OPERATOR(pg_catalog.=) 'array' THEN
        RETURN (
            SELECT coalesce(pg_catalog.jsonb_agg(pgdoc.exclude(item, fields) ORDER BY place), '[]')
            FROM pg_catalog.jsonb_array_elements(value) WITH ORDINALITY AS each(item, place)
        );
    END IF;
    RETURN value;
END
$$;
COMMENT ON FUNCTION pgdoc.exclude IS
    'The value without the fields of a tree that has true at its leaves; a slice at a leaf keeps a part of an array';

CREATE FUNCTION pgdoc.candidates(data jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE ROWS 10
AS $$
DECLARE
    value pg_catalog.jsonb := data;
    item pg_catalog.jsonb;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(path) LOOP
        value := CASE WHEN pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'object'
            THEN value OPERATOR(pg_catalog.->) path[i] END;
        IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
            FOR item IN SELECT pg_catalog.jsonb_array_elements(value) LOOP
                item := pg_catalog.jsonb_build_array(item);
                FOR part IN REVERSE i .. 1 LOOP
                    item := pg_catalog.jsonb_build_object(path[part], item);
                END LOOP;
                RETURN NEXT item;
            END LOOP;
            RETURN;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgdoc.candidates IS
    'For each item of the first array on a path, a document that has nothing but this array, with nothing but the item';

CREATE FUNCTION pgdoc.narrow(data jsonb, path text[], place bigint, keeps_others boolean) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    value pg_catalog.jsonb := data;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(path) LOOP
        value := CASE WHEN pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'object'
            THEN value OPERATOR(pg_catalog.->) path[i] END;
        IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
            IF place IS NULL THEN
                RETURN data OPERATOR(pg_catalog.#-) path[:i];
            END IF;
            value := value OPERATOR(pg_catalog.->) (place OPERATOR(pg_catalog.-) 1)::integer;
            RETURN pg_catalog.jsonb_set(data, path[:i], pg_catalog.jsonb_build_array(value));
        END IF;
    END LOOP;
    RETURN CASE WHEN keeps_others THEN data ELSE data OPERATOR(pg_catalog.#-) path END;
END
$$;
COMMENT ON FUNCTION pgdoc.narrow IS
    'The data with only the item at this place, from 1, of the first array on a path; without the array if the place is NULL';

CREATE FUNCTION pgdoc.referred(value jsonb, path jsonb, start integer) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    FOR i IN start .. pg_catalog.jsonb_array_length(path) OPERATOR(pg_catalog.-) 1 LOOP
        IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
            RETURN (
                SELECT coalesce(pg_catalog.jsonb_agg(part ORDER BY place) FILTER (WHERE part IS NOT NULL), '[]')
                FROM (SELECT place, pgdoc.referred(item, path, i)
                      FROM pg_catalog.jsonb_array_elements(value) WITH ORDINALITY AS each(item, place)
                      WHERE pg_catalog.jsonb_typeof(item) OPERATOR(pg_catalog.=) 'object') AS parts(place, part)
            );
        END IF;
        value := CASE WHEN pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'object'
            THEN value OPERATOR(pg_catalog.->) (path OPERATOR(pg_catalog.->>) i) END;
    END LOOP;
    RETURN value;
END
$$;
COMMENT ON FUNCTION pgdoc.referred IS
    'The value at a path, from the part `start` on; an array on the way yields the array of what its objects have there';

CREATE FUNCTION pgdoc.evaluate(id text, data jsonb, expression jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := expression OPERATOR(pg_catalog.->>) 0;
    value pg_catalog.jsonb := expression OPERATOR(pg_catalog.->) 1;
BEGIN
    IF kind OPERATOR(pg_catalog.=) 'value' THEN
        RETURN value;
    ELSIF kind OPERATOR(pg_catalog.=) 'path' THEN
        RETURN CASE WHEN value OPERATOR(pg_catalog.->>) 0 OPERATOR(pg_catalog.=) '_id'
            THEN pgdoc.referred(pg_catalog.to_jsonb(id), value, 1) ELSE pgdoc.referred(data, value, 0) END;
    ELSIF kind OPERATOR(pg_catalog.=) 'ifNull' THEN
        FOR i IN 1 .. pg_catalog.jsonb_array_length(expression) OPERATOR(pg_catalog.-) 1 LOOP
            value := pgdoc.evaluate(id, data, expression OPERATOR(pg_catalog.->) i);
            EXIT WHEN value OPERATOR(pg_catalog.<>) 'null';
        END LOOP;
        RETURN value;
    END IF;
    value := pgdoc.evaluate(id, data, value);
    RETURN CASE
        WHEN (pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array') IS NOT TRUE THEN 'null'
        WHEN kind OPERATOR(pg_catalog.=) 'size' THEN pg_catalog.to_jsonb(pg_catalog.jsonb_array_length(value))
        ELSE value OPERATOR(pg_catalog.->) (expression OPERATOR(pg_catalog.->>) 2)::integer
    END;
END
$$;
COMMENT ON FUNCTION pgdoc.evaluate IS 'The value of the expression of a computed field; NULL if it is missing';

CREATE FUNCTION pgdoc.computed(id text, data jsonb, fields jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN (
        SELECT coalesce(pg_catalog.jsonb_object_agg(key, part) FILTER (WHERE part IS NOT NULL), '{}')
        FROM (SELECT key, pgdoc.evaluate(id, data, expression) FROM pg_catalog.jsonb_each(fields) AS each(key, expression))
            AS parts(key, part)
    );
END
$$;
COMMENT ON FUNCTION pgdoc.computed IS 'The computed fields of a projection, without the missing ones';
