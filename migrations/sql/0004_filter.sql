-- Functions of the filter language, in addition to those of 0001.

CREATE FUNCTION pgdoc.type_of(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE  -- not STRICT: PostgreSQL would not inline it
    RETURN CASE jsonb_typeof(value)
        WHEN 'boolean' THEN 'bool'
        WHEN 'number' THEN CASE
            WHEN scale(value::numeric) > 0 THEN 'double'
            WHEN value::numeric BETWEEN -2147483648 AND 2147483647 THEN 'int'
            WHEN value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN 'long'
            ELSE 'decimal'
        END
        ELSE jsonb_typeof(value)
    END;
COMMENT ON FUNCTION pgdoc.type_of IS 'The type of the value, by its MongoDB name';

CREATE FUNCTION pgdoc.ends_at(value jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    depth integer := cardinality(path);
    item jsonb;
    index integer := 0;
BEGIN
    FOR i IN 1 .. depth LOOP
        IF jsonb_typeof(value) = 'array' THEN
            FOR item IN SELECT jsonb_array_elements(value) LOOP
                IF jsonb_typeof(item) = 'object' THEN
                    RETURN QUERY SELECT pgdoc.ends_at(item, path[i:]);
                END IF;
                IF path[i] = index::text THEN
                    IF i = depth THEN
                        RETURN NEXT item;
                    ELSIF jsonb_typeof(item) IN ('object', 'array') THEN
                        RETURN QUERY SELECT pgdoc.ends_at(item, path[i + 1:]);
                    END IF;
                END IF;
                index := index + 1;
            END LOOP;
            RETURN;
        ELSIF jsonb_typeof(value) = 'object' AND value ? path[i] THEN
            value := value -> path[i];
        ELSE
            RETURN;
        END IF;
    END LOOP;
    RETURN NEXT value;
END
$$;
COMMENT ON FUNCTION pgdoc.ends_at IS
    'All values at the end of a path; returns an array there as one value, and no row for a missing value';

CREATE FUNCTION pgdoc.element_documents(items jsonb) RETURNS SETOF jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE  -- STRICT keeps it from being inlined: nested calls would look costly enough for JIT
    BEGIN ATOMIC
        SELECT jsonb_build_object('', CASE jsonb_typeof(item)
            WHEN 'object' THEN item
            ELSE (
                SELECT coalesce(jsonb_object_agg(place - 1, part), '{}')
                FROM jsonb_array_elements(item) WITH ORDINALITY AS inside(part, place)
            )
        END)
        FROM jsonb_array_elements(items) AS every(item)
        WHERE jsonb_typeof(item) IN ('object', 'array');
    END;
COMMENT ON FUNCTION pgdoc.element_documents IS
    'One document per object among the items, with the object in its only field; an array counts as an object keyed by index';
