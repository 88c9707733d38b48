-- Functions of projections, sorts and indexes.

CREATE FUNCTION pgdoc.number_key(number numeric) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    -- numeric_send, four hex digits each: digit count, weight of the first digit, sign, scale, then the base-10,000 digits.
    sent text := encode(numeric_send(number), 'hex');
    size text := translate(substr(sent, 5, 1), '0123456789abcdef', '89abcdef01234567') || substr(sent, 6, 3)
        || substr(sent, 17);
BEGIN
    RETURN CASE sign(number)
        WHEN 1 THEN '22' || size || '!'
        WHEN 0 THEN '21'
        ELSE '20' || translate(size, '0123456789abcdef', 'fedcba9876543210') || '~'
    END;
END
$$;
COMMENT ON FUNCTION pgdoc.number_key IS 'Text whose code point order is the order of the numbers';

CREATE FUNCTION pgdoc.scalar_key(value jsonb, longest integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE jsonb_typeof(value)
        WHEN 'string' THEN '3' || CASE WHEN longest IS NULL THEN value #>> '{}' ELSE left(value #>> '{}', longest) END
        WHEN 'number' THEN pgdoc.number_key(value::numeric)
        WHEN 'boolean' THEN CASE WHEN value::boolean THEN '61' ELSE '60' END
        ELSE '1'
    END;
END
$$;
COMMENT ON FUNCTION pgdoc.scalar_key IS 'The sort key of a value that is neither an object nor an array';

-- A terminator must sort before anything that can follow instead: '0' sorts before every type, and \x01\x01 before any text,
-- where \x01 is escaped as \x01\x02. Each part is at least one character long, so the first `longest` characters never hold
-- more than `longest` parts.
CREATE FUNCTION pgdoc.nested_key(value jsonb, longest integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind text := jsonb_typeof(value);
    result text;
BEGIN
    IF kind = 'object' THEN
        SELECT string_agg(
            pgdoc.type_rank(field) || replace(key, E'\x01', E'\x01\x02') || E'\x01\x01'
                || pgdoc.nested_key(field, longest),
            '' ORDER BY key COLLATE "C")
        INTO result
        FROM (SELECT * FROM jsonb_each(value) AS each(key, field) ORDER BY key COLLATE "C" LIMIT longest) AS fields;
        RETURN '4' || coalesce(result, '') || '0';
    ELSIF kind = 'array' AND longest IS NULL THEN
        SELECT string_agg(pgdoc.nested_key(item, longest), '' ORDER BY place)
        INTO result
        FROM jsonb_array_elements(value) WITH ORDINALITY AS each(item, place);
        RETURN '5' || coalesce(result, '') || '0';
    ELSIF kind = 'array' THEN
        result := '5';
        FOR i IN 0 .. least(jsonb_array_length(value), longest) - 1 LOOP
            result := result || pgdoc.nested_key(value -> i, longest);
            EXIT WHEN octet_length(result) > 4 * longest;
        END LOOP;
        RETURN result || '0';
    ELSIF kind = 'string' THEN
        RETURN replace(pgdoc.scalar_key(value, longest), E'\x01', E'\x01\x02') || E'\x01\x01';
    END IF;
    RETURN pgdoc.scalar_key(value, longest);
END
$$;
COMMENT ON FUNCTION pgdoc.nested_key IS 'The sort_key of a part of a value; only its first `longest` characters are exact';

CREATE FUNCTION pgdoc.sort_key(value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind text := jsonb_typeof(value);
BEGIN
    RETURN CASE
        WHEN kind = 'string' THEN '3' || left(value #>> '{}', 79)
        WHEN kind = 'number' THEN left(pgdoc.number_key(value::numeric), 80)
        WHEN kind IN ('object', 'array') THEN left(pgdoc.nested_key(value, 80), 80)
        ELSE pgdoc.scalar_key(value, 79)
    END;
END
$$;
COMMENT ON FUNCTION pgdoc.sort_key IS
    'Text of at most 80 characters whose code point order is MongoDB''s order of the values; NULL sorts as null';

CREATE FUNCTION pgdoc.sort_rest(value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind text := jsonb_typeof(value);
    whole text := CASE
        WHEN kind IN ('string', 'number') THEN pgdoc.scalar_key(value, NULL)
        WHEN kind IN ('object', 'array') THEN pgdoc.nested_key(value, NULL)
    END;
BEGIN
    RETURN CASE WHEN octet_length(whole) > 80 AND length(whole) > 80 THEN whole END;
END
$$;
COMMENT ON FUNCTION pgdoc.sort_rest IS 'The full key of a value whose sort_key was cut; NULL for all others';

CREATE FUNCTION pgdoc.sort_keys(items jsonb[]) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(SELECT DISTINCT pgdoc.sort_key(value) FROM unnest(items) AS item(value));
COMMENT ON FUNCTION pgdoc.sort_keys IS 'The distinct sort_key values of the items';

CREATE FUNCTION pgdoc.found_keys(data jsonb, path text[]) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    value jsonb := data -> path[1];
    result text[];
BEGIN
    IF cardinality(path) > 1 OR jsonb_typeof(value) IS DISTINCT FROM 'array' THEN
        RETURN ARRAY(SELECT DISTINCT pgdoc.sort_key(item) FROM pgdoc.values_at(data, path) AS each(item));
    END IF;
    result := ARRAY[pgdoc.sort_key(value)];
    FOR i IN 0 .. jsonb_array_length(value) - 1 LOOP
        result := result || pgdoc.sort_key(value -> i);
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION pgdoc.found_keys IS 'The sort_key of every value that a filter finds at a path';

-- Completes the key of a unique index, so that two documents have equal keys only if the index must refuse the second. A
-- document with an array on the path never conflicts; where a sort key was cut, a digest of the full keys is
-- part of the key.
CREATE FUNCTION pgdoc.unique_rest(id text, has_array boolean, variadic rests text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE
        WHEN has_array THEN 'id ' || md5(id)
        WHEN cardinality(array_remove(rests, NULL)) > 0 THEN 'rest ' || md5(rests::text)
    END;
END
$$;
COMMENT ON FUNCTION pgdoc.unique_rest IS 'The part of a unique index key that follows the sort keys';

CREATE FUNCTION pgdoc.elements_at(value jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    item jsonb;
    index integer := 0;
BEGIN
    FOR i IN 1 .. cardinality(path) LOOP
        IF jsonb_typeof(value) = 'array' THEN
            FOR item IN SELECT jsonb_array_elements(value) LOOP
                IF jsonb_typeof(item) = 'object' THEN
                    RETURN QUERY SELECT pgdoc.elements_at(item, path[i:]);
                END IF;
                IF path[i] = index::text THEN
                    RETURN QUERY SELECT pgdoc.elements_at(item, path[i + 1:]);
                END IF;
                index := index + 1;
            END LOOP;
            RETURN;
        END IF;
        value := CASE jsonb_typeof(value) WHEN 'object' THEN value -> path[i] END;
    END LOOP;
    IF jsonb_typeof(value) = 'array' THEN
        RETURN QUERY SELECT jsonb_array_elements(value);
    ELSIF value IS NOT NULL THEN
        RETURN NEXT value;
    END IF;
END
$$;
COMMENT ON FUNCTION pgdoc.elements_at IS 'The values at a path; for an array at its end, the items';

CREATE FUNCTION pgdoc.include(value jsonb, fields jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind text := jsonb_typeof(value);
BEGIN
    IF fields = 'true' THEN
        RETURN value;
    ELSIF kind = 'object' THEN
        RETURN (
            SELECT coalesce(jsonb_object_agg(key, part) FILTER (WHERE part IS NOT NULL), '{}')
            FROM (SELECT key, pgdoc.include(value -> key, below) FROM jsonb_each(fields) AS field(key, below))
                AS parts(key, part)
        );
    ELSIF kind = 'array' THEN
        RETURN (
            SELECT coalesce(jsonb_agg(part ORDER BY place) FILTER (WHERE part IS NOT NULL), '[]')
            FROM (SELECT place, pgdoc.include(item, fields)
                  FROM jsonb_array_elements(value) WITH ORDINALITY AS each(item, place)) AS parts(place, part)
        );
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgdoc.include IS 'The value with only the named fields, a tree with true at its leaves; applies to each item of an array';

CREATE FUNCTION pgdoc.exclude(value jsonb, fields jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind text := jsonb_typeof(value);
BEGIN
    IF fields IS NULL THEN
        RETURN value;
    ELSIF kind = 'object' THEN
        RETURN (
            SELECT coalesce(jsonb_object_agg(key, pgdoc.exclude(part, fields -> key)), '{}')
            FROM jsonb_each(value) AS each(key, part)
            WHERE fields -> key IS DISTINCT FROM 'true'
        );
    ELSIF kind = 'array' THEN
        RETURN (
            SELECT coalesce(jsonb_agg(pgdoc.exclude(item, fields) ORDER BY place), '[]')
            FROM jsonb_array_elements(value) WITH ORDINALITY AS each(item, place)
        );
    END IF;
    RETURN value;
END
$$;
COMMENT ON FUNCTION pgdoc.exclude IS 'The value without the named fields';
