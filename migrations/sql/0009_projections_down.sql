DROP FUNCTION pgdoc.computed(text, jsonb, jsonb);
DROP FUNCTION pgdoc.evaluate(text, jsonb, jsonb);
DROP FUNCTION pgdoc.referred(jsonb, jsonb, integer);
DROP FUNCTION pgdoc.narrow(jsonb, text[], bigint, boolean);
DROP FUNCTION pgdoc.candidates(jsonb, text[]);

CREATE OR REPLACE FUNCTION pgdoc.include(value jsonb, fields jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
BEGIN
    IF fields OPERATOR(pg_catalog.=) 'true' THEN
        RETURN value;
    ELSIF kind OPERATOR(pg_catalog.=) 'object' THEN
        RETURN (
            SELECT coalesce(pg_catalog.jsonb_object_agg(key, part) FILTER (WHERE part IS NOT NULL), '{}')
            FROM (SELECT key, pgdoc.include(value OPERATOR(pg_catalog.->) key, below)
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

CREATE OR REPLACE FUNCTION pgdoc.exclude(value jsonb, fields jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
BEGIN
    IF fields IS NULL THEN
        RETURN value;
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
COMMENT ON FUNCTION pgdoc.include IS 'The value with only the named fields, a tree with true at its leaves; applies to each item of an array';
COMMENT ON FUNCTION pgdoc.exclude IS 'The value without the named fields';

DROP FUNCTION pgdoc.slice(jsonb, integer, integer);
