-- Functions that compiled filters and updates call. A path is text[]; each part is an object key or an array index.

CREATE FUNCTION pgdoc.type_rank(value jsonb) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE  -- not STRICT: PostgreSQL would not inline it
    RETURN CASE jsonb_typeof(value)
        WHEN 'null' THEN 1 WHEN 'number' THEN 2 WHEN 'string' THEN 3
        WHEN 'object' THEN 4 WHEN 'array' THEN 5 WHEN 'boolean' THEN 6
    END;
COMMENT ON FUNCTION pgdoc.type_rank IS 'The rank of the value''s type in the order of all values';

CREATE FUNCTION pgdoc.compare(a jsonb, b jsonb) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    kind text := jsonb_typeof(a);
    result integer := sign(pgdoc.type_rank(a) - pgdoc.type_rank(b));
    a_key text; a_value jsonb; b_key text; b_value jsonb;
BEGIN
    IF result <> 0 OR kind = 'null' THEN
        RETURN result;
    ELSIF kind = 'number' THEN
        RETURN CASE WHEN a::numeric < b::numeric THEN -1 WHEN a::numeric > b::numeric THEN 1 ELSE 0 END;
    ELSIF kind = 'boolean' THEN
        RETURN a::boolean::integer - b::boolean::integer;
    ELSIF kind = 'string' THEN
        RETURN CASE WHEN (a #>> '{}') < (b #>> '{}') COLLATE "C" THEN -1
                    WHEN (a #>> '{}') > (b #>> '{}') COLLATE "C" THEN 1 ELSE 0 END;
    ELSIF kind = 'array' THEN
        FOR i IN 0 .. least(jsonb_array_length(a), jsonb_array_length(b)) - 1 LOOP
            result := pgdoc.compare(a -> i, b -> i);
            IF result <> 0 THEN
                RETURN result;
            END IF;
        END LOOP;
        RETURN sign(jsonb_array_length(a) - jsonb_array_length(b));
    END IF;
    FOR a_key, a_value, b_key, b_value IN
        SELECT x.key, x.value, y.key, y.value
        FROM (SELECT key, value, row_number() OVER (ORDER BY key COLLATE "C") AS place FROM jsonb_each(a)) AS x
        FULL JOIN (SELECT key, value, row_number() OVER (ORDER BY key COLLATE "C") AS place FROM jsonb_each(b)) AS y
            USING (place)
        ORDER BY place
    LOOP
        result := CASE
            WHEN a_key IS NULL THEN -1
            WHEN b_key IS NULL THEN 1
            WHEN pgdoc.type_rank(a_value) <> pgdoc.type_rank(b_value)
                THEN sign(pgdoc.type_rank(a_value) - pgdoc.type_rank(b_value))
            WHEN a_key < b_key COLLATE "C" THEN -1
            WHEN a_key > b_key COLLATE "C" THEN 1
            ELSE pgdoc.compare(a_value, b_value)
        END;
        IF result <> 0 THEN
            RETURN result;
        END IF;
    END LOOP;
    RETURN 0;
END
$$;
COMMENT ON FUNCTION pgdoc.compare IS 'The order of all JSON values: -1, 0 or 1';

CREATE FUNCTION pgdoc.values_at(value jsonb, path text[]) RETURNS SETOF jsonb
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
                    RETURN QUERY SELECT pgdoc.values_at(item, path[i:]);
                END IF;
                IF path[i] = index::text THEN
                    IF i = depth THEN
                        RETURN NEXT item;
                    ELSIF jsonb_typeof(item) IN ('object', 'array') THEN
                        RETURN QUERY SELECT pgdoc.values_at(item, path[i + 1:]);
                    END IF;
                END IF;
                index := index + 1;
            END LOOP;
            RETURN;
        ELSIF jsonb_typeof(value) = 'object' AND value ? path[i] THEN
            value := value -> path[i];
        ELSE
            RETURN NEXT NULL;
            RETURN;
        END IF;
    END LOOP;
    RETURN NEXT value;
    IF jsonb_typeof(value) = 'array' THEN
        RETURN QUERY SELECT jsonb_array_elements(value);
    END IF;
END
$$;
COMMENT ON FUNCTION pgdoc.values_at IS
    'All values that a filter finds at a path: for an array at its end, the array and each of its items; NULL for a missing value';

CREATE FUNCTION pgdoc.child(value jsonb, part text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE  -- not STRICT, as above
    RETURN CASE jsonb_typeof(value)
        WHEN 'object' THEN value -> part
        WHEN 'array' THEN CASE WHEN part ~ '^(0|[1-9][0-9]{0,8})$' THEN value -> part::integer END
    END;
COMMENT ON FUNCTION pgdoc.child IS 'The value one step down a path; NULL if there is none';

CREATE FUNCTION pgdoc.value_at(value jsonb, path text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    FOR i IN 1 .. cardinality(path) LOOP
        value := pgdoc.child(value, path[i]);
    END LOOP;
    RETURN value;
END
$$;
COMMENT ON FUNCTION pgdoc.value_at IS 'The value that an update finds at a path; NULL if there is none';

CREATE FUNCTION pgdoc.set_at(data jsonb, path text[], value jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    node jsonb := data;
    next jsonb;
    padding integer;
BEGIN
    FOR i IN 1 .. cardinality(path) LOOP
        next := pgdoc.child(node, path[i]);
        IF next IS NULL THEN
            FOR j IN REVERSE cardinality(path) .. i + 1 LOOP
                value := jsonb_build_object(path[j], value);
            END LOOP;
            IF jsonb_typeof(node) = 'object' THEN
                RETURN jsonb_set(data, path[:i], value);
            ELSIF jsonb_typeof(node) = 'array' AND path[i] ~ '^(0|[1-9][0-9]{0,8})$' THEN
                padding := path[i]::integer - jsonb_array_length(node);
                IF padding <= 1500000 THEN
                    node := node || to_jsonb(array_fill(NULL::integer, ARRAY[padding])) || jsonb_build_array(value);
                    RETURN jsonb_set(data, path[:i - 1], node);
                END IF;
            END IF;
            RETURN NULL;
        END IF;
        node := next;
    END LOOP;
    RETURN jsonb_set(data, path, value);
END
$$;
COMMENT ON FUNCTION pgdoc.set_at IS 'The data with the value set at the path; NULL if the path does not fit the data';

CREATE FUNCTION pgdoc.unset_at(data jsonb, path text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    parent jsonb := pgdoc.value_at(data, trim_array(path, 1));
BEGIN
    IF pgdoc.child(parent, path[cardinality(path)]) IS NULL THEN
        RETURN data;
    ELSIF jsonb_typeof(parent) = 'array' THEN
        RETURN jsonb_set(data, path, 'null');
    END IF;
    RETURN data #- path;
END
$$;
COMMENT ON FUNCTION pgdoc.unset_at IS 'The data without the field at the path; an item of an array becomes null';

CREATE FUNCTION pgdoc.increment_at(data jsonb, path text[], amount numeric) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found jsonb := pgdoc.value_at(data, path);
BEGIN
    IF found IS NULL THEN
        RETURN pgdoc.set_at(data, path, to_jsonb(amount));
    ELSIF jsonb_typeof(found) = 'number' THEN
        RETURN jsonb_set(data, path, to_jsonb(found::numeric + amount));
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgdoc.increment_at IS 'The data with the number at the path incremented; NULL if it does not fit';
