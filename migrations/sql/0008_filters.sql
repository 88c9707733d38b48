-- The values that filters test, as in MongoDB 9.0. values_at keeps the older meaning, on which the entries of existing
-- indexes depend: it finds fewer missing values in arrays, and plans do not rely on it for null.

CREATE FUNCTION pgdoc.tested_values(value jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    depth integer := pg_catalog.cardinality(path);
    size integer;
    index integer;
    item pg_catalog.jsonb;
    lacks_object boolean;
BEGIN
    FOR i IN 1 .. depth LOOP
        IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
            size := pg_catalog.jsonb_array_length(value);
            index := CASE WHEN path[i] OPERATOR(pg_catalog.~) '^(0|[1-9][0-9]{0,8})$' THEN path[i]::integer ELSE size END;
            lacks_object := size OPERATOR(pg_catalog.=) 0;
            FOR item IN SELECT pg_catalog.jsonb_array_elements(value) LOOP
                IF pg_catalog.jsonb_typeof(item) OPERATOR(pg_catalog.=) 'object' THEN
                    RETURN QUERY SELECT pgdoc.tested_values(item, path[i:]);
                ELSE
                    lacks_object := true;
                END IF;
            END LOOP;
            IF index OPERATOR(pg_catalog.>=) size THEN
                IF lacks_object THEN
                    RETURN NEXT NULL;
                END IF;
            ELSIF i OPERATOR(pg_catalog.=) depth THEN
                RETURN NEXT value OPERATOR(pg_catalog.->) index;
            ELSE
                RETURN QUERY SELECT pgdoc.tested_values(
                    value OPERATOR(pg_catalog.->) index, path[i OPERATOR(pg_catalog.+) 1:]);
            END IF;
            RETURN;
        ELSIF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'object' AND value OPERATOR(pg_catalog.?) path[i] THEN
            value := value OPERATOR(pg_catalog.->) path[i];
        ELSE
            RETURN NEXT NULL;
            RETURN;
        END IF;
    END LOOP;
    RETURN NEXT value;
    IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
        RETURN QUERY SELECT pg_catalog.jsonb_array_elements(value);
    END IF;
END
$$;
COMMENT ON FUNCTION pgdoc.tested_values IS
    'All values that a filter tests at a path: for an array at its end, the array and each of its items; NULL for a missing value, also in an array on the way';
COMMENT ON FUNCTION pgdoc.values_at IS
    'The values that an index holds for a path: those that a filter tests, without the missing values of arrays on the way';

-- What it takes, so that PostgreSQL does not call it for all documents of a small collection instead of using an index.
ALTER FUNCTION pgdoc.found_keys(jsonb, text[]) COST 1000;
