-- What functions call, whatever the search_path, and what PUBLIC may do.

-- Functions whose body is text are read anew in each session, with that session's search_path, in which another role may
-- have a function or an operator that fits better than PostgreSQL's. There are three ways to prevent that:
--
-- 1. SET search_path, as all functions of 0007 have it. It costs up to 10 us per call.
-- 2. A body that is SQL and not text is bound once, when it is created: here, under this search_path.
-- 3. A body that names pg_catalog everywhere, for the functions in PL/pgSQL that run for each row.
--
-- The functions below are those of 0001 to 0006 and do the same.
SET LOCAL search_path = pg_catalog, pg_temp;

ALTER FUNCTION pgdoc.refuse_insert() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION pgdoc.set_metadata(jsonb) SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION pgdoc.published_since(text, text[]) SET search_path = pg_catalog, pg_temp;


-- Bound under the search_path above.

CREATE OR REPLACE FUNCTION pgdoc.type_rank(value jsonb) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE  -- not STRICT: PostgreSQL would not inline it
    RETURN CASE jsonb_typeof(value)
        WHEN 'null' THEN 1 WHEN 'number' THEN 2 WHEN 'string' THEN 3
        WHEN 'object' THEN 4 WHEN 'array' THEN 5 WHEN 'boolean' THEN 6
    END;

CREATE OR REPLACE FUNCTION pgdoc.child(value jsonb, part text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE  -- not STRICT, as above
    RETURN CASE jsonb_typeof(value)
        WHEN 'object' THEN value -> part
        WHEN 'array' THEN CASE WHEN part ~ '^(0|[1-9][0-9]{0,8})$' THEN value -> part::integer END
    END;

CREATE OR REPLACE FUNCTION pgdoc.type_of(value jsonb) RETURNS text
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

CREATE OR REPLACE FUNCTION pgdoc.element_documents(items jsonb) RETURNS SETOF jsonb
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

CREATE OR REPLACE FUNCTION pgdoc.transaction_time() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

CREATE OR REPLACE FUNCTION pgdoc.items_at(data jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 10
    BEGIN ATOMIC
        SELECT jsonb_array_elements(CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE '[]' END)
        FROM pgdoc.value_at(data, path) AS found(value);
    END;

CREATE OR REPLACE FUNCTION pgdoc.put_items(data jsonb, path text[], items jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN jsonb_typeof(pgdoc.value_at(data, path)) = 'array' THEN jsonb_set(data, path, items) END;

CREATE OR REPLACE FUNCTION pgdoc.keep_at(data jsonb, path text[], items jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE
        WHEN pgdoc.value_at(data, path) IS NOT NULL THEN pgdoc.put_items(data, path, items)
        WHEN pgdoc.could_be_at(data, path) THEN data
    END;

CREATE OR REPLACE FUNCTION pgdoc.pull_all_at(data jsonb, path text[], pulled jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pgdoc.keep_at(data, path, (
        SELECT coalesce(jsonb_agg(item ORDER BY place), '[]')
        FROM pgdoc.items_at(data, path) WITH ORDINALITY AS found(item, place)
        WHERE item <> ALL (ARRAY(SELECT jsonb_array_elements(pulled)))
    ));

CREATE OR REPLACE FUNCTION pgdoc.pop_at(data jsonb, path text[], first boolean) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pgdoc.keep_at(data, path, CASE jsonb_typeof(pgdoc.value_at(data, path))
        WHEN 'array' THEN pgdoc.value_at(data, path) - CASE WHEN first THEN 0 ELSE -1 END
        ELSE '[]'
    END);

CREATE OR REPLACE FUNCTION pgdoc.sorted_items(items jsonb[], path text[], descending boolean) RETURNS jsonb[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (
        SELECT coalesce(array_agg(item ORDER BY CASE WHEN NOT descending THEN parts END,
                                                CASE WHEN descending THEN parts END DESC, place), '{}')
        FROM (SELECT item, place, pgdoc.sort_parts(coalesce(CASE
                  WHEN cardinality(path) = 0 THEN item
                  WHEN jsonb_typeof(item) = 'object' THEN pgdoc.value_at(item, path)
              END, 'null')) AS parts
              FROM unnest(items) WITH ORDINALITY AS given(item, place)) AS keyed
    );

CREATE OR REPLACE FUNCTION pgdoc.sort_keys(items jsonb[]) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(SELECT DISTINCT pgdoc.sort_key(value) FROM unnest(items) AS item(value));


-- Qualified, as before_update is.

CREATE OR REPLACE FUNCTION pgdoc.compare(a jsonb, b jsonb) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(a);
    result integer := pg_catalog.sign(pgdoc.type_rank(a) OPERATOR(pg_catalog.-) pgdoc.type_rank(b));
    a_key pg_catalog.text; a_value pg_catalog.jsonb; b_key pg_catalog.text; b_value pg_catalog.jsonb;
BEGIN
    IF result OPERATOR(pg_catalog.<>) 0 OR kind OPERATOR(pg_catalog.=) 'null' THEN
        RETURN result;
    ELSIF kind OPERATOR(pg_catalog.=) 'number' THEN
        RETURN CASE WHEN a::numeric OPERATOR(pg_catalog.<) b::numeric THEN -1 WHEN a::numeric
            OPERATOR(pg_catalog.>) b::numeric THEN 1 ELSE 0 END;
    ELSIF kind OPERATOR(pg_catalog.=) 'boolean' THEN
        RETURN a::boolean::integer OPERATOR(pg_catalog.-) b::boolean::integer;
    ELSIF kind OPERATOR(pg_catalog.=) 'string' THEN
        RETURN CASE WHEN (a OPERATOR(pg_catalog.#>>) '{}')
            OPERATOR(pg_catalog.<) (b OPERATOR(pg_catalog.#>>) '{}') COLLATE pg_catalog."C" THEN -1
                    WHEN (a OPERATOR(pg_catalog.#>>) '{}')
                        OPERATOR(pg_catalog.>) (b OPERATOR(pg_catalog.#>>) '{}') COLLATE pg_catalog."C" THEN 1 ELSE 0 END;
    ELSIF kind OPERATOR(pg_catalog.=) 'array' THEN
        FOR i IN 0 .. least(pg_catalog.jsonb_array_length(a), pg_catalog.jsonb_array_length(b)) OPERATOR(pg_catalog.-) 1 LOOP
            result := pgdoc.compare(a OPERATOR(pg_catalog.->) i, b OPERATOR(pg_catalog.->) i);
            IF result OPERATOR(pg_catalog.<>) 0 THEN
                RETURN result;
            END IF;
        END LOOP;
        RETURN pg_catalog.sign(pg_catalog.jsonb_array_length(a) OPERATOR(pg_catalog.-) pg_catalog.jsonb_array_length(b));
    END IF;
    FOR a_key, a_value, b_key, b_value IN
        SELECT x.key, x.value, y.key, y.value
        FROM (SELECT key, value, pg_catalog.row_number() OVER (ORDER BY key COLLATE pg_catalog."C") AS place
            FROM pg_catalog.jsonb_each(a)) AS x
        FULL JOIN (SELECT key, value, pg_catalog.row_number() OVER (ORDER BY key COLLATE pg_catalog."C") AS place
            FROM pg_catalog.jsonb_each(b)) AS y
            ON x.place OPERATOR(pg_catalog.=) y.place
        ORDER BY coalesce(x.place, y.place)
    LOOP
        result := CASE
            WHEN a_key IS NULL THEN -1
            WHEN b_key IS NULL THEN 1
            WHEN pgdoc.type_rank(a_value) OPERATOR(pg_catalog.<>) pgdoc.type_rank(b_value)
                THEN pg_catalog.sign(pgdoc.type_rank(a_value) OPERATOR(pg_catalog.-) pgdoc.type_rank(b_value))
            WHEN a_key OPERATOR(pg_catalog.<) b_key COLLATE pg_catalog."C" THEN -1
            WHEN a_key OPERATOR(pg_catalog.>) b_key COLLATE pg_catalog."C" THEN 1
            ELSE pgdoc.compare(a_value, b_value)
        END;
        IF result OPERATOR(pg_catalog.<>) 0 THEN
            RETURN result;
        END IF;
    END LOOP;
    RETURN 0;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.values_at(value jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    depth integer := pg_catalog.cardinality(path);
    item pg_catalog.jsonb;
    index integer := 0;
BEGIN
    FOR i IN 1 .. depth LOOP
        IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
            FOR item IN SELECT pg_catalog.jsonb_array_elements(value) LOOP
                IF pg_catalog.jsonb_typeof(item) OPERATOR(pg_catalog.=) 'object' THEN
                    RETURN QUERY SELECT pgdoc.values_at(item, path[i:]);
                END IF;
                IF path[i] OPERATOR(pg_catalog.=) index::pg_catalog.text THEN
                    IF i OPERATOR(pg_catalog.=) depth THEN
                        RETURN NEXT item;
                    ELSIF pg_catalog.jsonb_typeof(item) OPERATOR(pg_catalog.=) ANY (ARRAY['object', 'array']) THEN
                        RETURN QUERY SELECT pgdoc.values_at(item, path[i OPERATOR(pg_catalog.+) 1:]);
                    END IF;
                END IF;
                index := index OPERATOR(pg_catalog.+) 1;
            END LOOP;
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

CREATE OR REPLACE FUNCTION pgdoc.value_at(value jsonb, path text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(path) LOOP
        value := pgdoc.child(value, path[i]);
    END LOOP;
    RETURN value;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.set_at(data jsonb, path text[], value jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    node pg_catalog.jsonb := data;
    next pg_catalog.jsonb;
    padding integer;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(path) LOOP
        next := pgdoc.child(node, path[i]);
        IF next IS NULL THEN
            FOR j IN REVERSE pg_catalog.cardinality(path) .. i OPERATOR(pg_catalog.+) 1 LOOP
                value := pg_catalog.jsonb_build_object(path[j], value);
            END LOOP;
            IF pg_catalog.jsonb_typeof(node) OPERATOR(pg_catalog.=) 'object' THEN
                RETURN pg_catalog.jsonb_set(data, path[:i], value);
            ELSIF pg_catalog.jsonb_typeof(node) OPERATOR(pg_catalog.=) 'array'
                AND path[i] OPERATOR(pg_catalog.~) '^(0|[1-9][0-9]{0,8})$' THEN
                padding := path[i]::integer OPERATOR(pg_catalog.-) pg_catalog.jsonb_array_length(node);
                IF padding OPERATOR(pg_catalog.<=) 1500000 THEN
                    node := node
                        OPERATOR(pg_catalog.||) pg_catalog.to_jsonb(pg_catalog.array_fill(NULL::integer, ARRAY[padding])) OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_array(value);
                    RETURN pg_catalog.jsonb_set(data, path[:i OPERATOR(pg_catalog.-) 1], node);
                END IF;
            END IF;
            RETURN NULL;
        END IF;
        node := next;
    END LOOP;
    RETURN pg_catalog.jsonb_set(data, path, value);
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.unset_at(data jsonb, path text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    parent pg_catalog.jsonb := pgdoc.value_at(data, pg_catalog.trim_array(path, 1));
BEGIN
    IF pgdoc.child(parent, path[pg_catalog.cardinality(path)]) IS NULL THEN
        RETURN data;
    ELSIF pg_catalog.jsonb_typeof(parent) OPERATOR(pg_catalog.=) 'array' THEN
        RETURN pg_catalog.jsonb_set(data, path, 'null');
    END IF;
    RETURN data OPERATOR(pg_catalog.#-) path;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.increment_at(data jsonb, path text[], amount numeric) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found pg_catalog.jsonb := pgdoc.value_at(data, path);
    total numeric;
BEGIN
    IF found IS NULL THEN
        RETURN pgdoc.set_at(data, path, pg_catalog.to_jsonb(amount));
    ELSIF pg_catalog.jsonb_typeof(found) OPERATOR(pg_catalog.=) 'number' THEN
        total := found::numeric OPERATOR(pg_catalog.+) amount;
        RETURN CASE WHEN pg_catalog.abs(total) OPERATOR(pg_catalog.<) 1e4300
            THEN pg_catalog.jsonb_set(data, path, pg_catalog.to_jsonb(total)) END;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.ends_at(value jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    depth integer := pg_catalog.cardinality(path);
    item pg_catalog.jsonb;
    index integer := 0;
BEGIN
    FOR i IN 1 .. depth LOOP
        IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
            FOR item IN SELECT pg_catalog.jsonb_array_elements(value) LOOP
                IF pg_catalog.jsonb_typeof(item) OPERATOR(pg_catalog.=) 'object' THEN
                    RETURN QUERY SELECT pgdoc.ends_at(item, path[i:]);
                END IF;
                IF path[i] OPERATOR(pg_catalog.=) index::pg_catalog.text THEN
                    IF i OPERATOR(pg_catalog.=) depth THEN
                        RETURN NEXT item;
                    ELSIF pg_catalog.jsonb_typeof(item) OPERATOR(pg_catalog.=) ANY (ARRAY['object', 'array']) THEN
                        RETURN QUERY SELECT pgdoc.ends_at(item, path[i OPERATOR(pg_catalog.+) 1:]);
                    END IF;
                END IF;
                index := index OPERATOR(pg_catalog.+) 1;
            END LOOP;
            RETURN;
        ELSIF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'object' AND value OPERATOR(pg_catalog.?) path[i] THEN
            value := value OPERATOR(pg_catalog.->) path[i];
        ELSE
            RETURN;
        END IF;
    END LOOP;
    RETURN NEXT value;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.multiply_at(data jsonb, path text[], factor numeric) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found pg_catalog.jsonb := pgdoc.value_at(data, path);
    product numeric;
    places integer;
BEGIN
    IF found IS NULL THEN
        RETURN pgdoc.set_at(data, path, '0');
    ELSIF pg_catalog.jsonb_typeof(found) OPERATOR(pg_catalog.=) 'number' THEN
        product := found::numeric OPERATOR(pg_catalog.*) factor;
        places := greatest(400, pg_catalog.scale(found::numeric), pg_catalog.scale(factor));
        IF pg_catalog.scale(product) OPERATOR(pg_catalog.>) places THEN
            product := pg_catalog.round(product, places);
        END IF;
        RETURN CASE WHEN pg_catalog.abs(product) OPERATOR(pg_catalog.<) 1e4300
            THEN pg_catalog.jsonb_set(data, path, pg_catalog.to_jsonb(product)) END;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.bound_at(data jsonb, path text[], value jsonb, sign integer) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found pg_catalog.jsonb := pgdoc.value_at(data, path);
BEGIN
    IF found IS NOT NULL AND pgdoc.compare(value, found) OPERATOR(pg_catalog.<>) sign THEN
        RETURN data;
    END IF;
    RETURN pgdoc.set_at(data, path, value);
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.rename_at(data jsonb, path text[], target text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    node pg_catalog.jsonb := data;
    there pg_catalog.jsonb;
    in_array boolean := false;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(path) LOOP
        IF pg_catalog.jsonb_typeof(node) OPERATOR(pg_catalog.=) 'array'
            AND path[i] OPERATOR(pg_catalog.~) '^(0|[1-9][0-9]{0,8})$' THEN
            in_array := true;
        ELSIF pg_catalog.jsonb_typeof(node) OPERATOR(pg_catalog.<>) 'object' THEN
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
    data := data OPERATOR(pg_catalog.#-) path;
    there := data;
    FOR i IN 1 .. pg_catalog.cardinality(target) LOOP
        IF pg_catalog.jsonb_typeof(there) OPERATOR(pg_catalog.=) 'array' THEN
            RETURN NULL;
        END IF;
        there := pgdoc.child(there, target[i]);
    END LOOP;
    RETURN pgdoc.set_at(data, target, node);
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.could_be_at(data jsonb, path text[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    next pg_catalog.jsonb;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(path) LOOP
        next := pgdoc.child(data, path[i]);
        IF next IS NULL THEN
            RETURN pg_catalog.jsonb_typeof(data) OPERATOR(pg_catalog.=) 'object'
                OR pg_catalog.jsonb_typeof(data) OPERATOR(pg_catalog.=) 'array'
                    AND path[i] OPERATOR(pg_catalog.~) '^(0|[1-9][0-9]{0,8})$';
        END IF;
        data := next;
    END LOOP;
    RETURN true;
END
$$;

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

CREATE OR REPLACE FUNCTION pgdoc.sort_parts(value jsonb) RETURNS pgdoc.sort_part[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
    parts pgdoc.sort_part[] := ARRAY[ROW(
        pgdoc.type_rank(value),
        CASE WHEN kind OPERATOR(pg_catalog.=) 'number'
            THEN value::numeric WHEN kind OPERATOR(pg_catalog.=) 'boolean' THEN value::boolean::integer END,
        CASE WHEN kind OPERATOR(pg_catalog.=) 'string' THEN value OPERATOR(pg_catalog.#>>) '{}' END)::pgdoc.sort_part];
    name pg_catalog.text;
    item pg_catalog.jsonb;
BEGIN
    IF kind OPERATOR(pg_catalog.=) 'array' THEN
        FOR item IN SELECT pg_catalog.jsonb_array_elements(value) LOOP
            parts := parts OPERATOR(pg_catalog.||) pgdoc.sort_parts(item);
        END LOOP;
    ELSIF kind OPERATOR(pg_catalog.=) 'object' THEN
        FOR name, item IN SELECT * FROM pg_catalog.jsonb_each(value) AS field(key, inner_value)
            ORDER BY key COLLATE pg_catalog."C" LOOP
            parts := parts
                OPERATOR(pg_catalog.||) ROW(pgdoc.type_rank(item), NULL, name)::pgdoc.sort_part
                    OPERATOR(pg_catalog.||) pgdoc.sort_parts(item);
        END LOOP;
    ELSE
        RETURN parts;
    END IF;
    RETURN parts OPERATOR(pg_catalog.||) ROW(0, NULL, NULL)::pgdoc.sort_part;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.push_at(data jsonb, path text[], items jsonb, place integer, sort jsonb, size integer) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    found pg_catalog.jsonb := coalesce(pgdoc.value_at(data, path), '[]');
    result pg_catalog.jsonb[];
    sort_key pg_catalog.jsonb;
BEGIN
    IF data IS NULL OR pg_catalog.jsonb_typeof(found) OPERATOR(pg_catalog.<>) 'array' THEN
        RETURN NULL;
    ELSIF place IS NULL AND sort OPERATOR(pg_catalog.=) '[]' AND size IS NULL THEN
        RETURN pgdoc.set_at(data, path, found OPERATOR(pg_catalog.||) items);
    END IF;
    result := ARRAY(SELECT pg_catalog.jsonb_array_elements(found));
    place := CASE WHEN place OPERATOR(pg_catalog.<) 0
        THEN greatest(place OPERATOR(pg_catalog.+) pg_catalog.cardinality(result), 0)
                  ELSE least(place, pg_catalog.cardinality(result)) END;
    result := result[:place] OPERATOR(pg_catalog.||)
        ARRAY(SELECT pg_catalog.jsonb_array_elements(items)) OPERATOR(pg_catalog.||) result[place OPERATOR(pg_catalog.+) 1:];
    FOR i IN REVERSE pg_catalog.jsonb_array_length(sort) OPERATOR(pg_catalog.-) 1 .. 0 LOOP
        sort_key := sort OPERATOR(pg_catalog.->) i;
        result := pgdoc.sorted_items(
            result, ARRAY(SELECT pg_catalog.jsonb_array_elements_text(sort_key OPERATOR(pg_catalog.->) 'path')), (sort_key OPERATOR(pg_catalog.->) 'descending')::boolean);
    END LOOP;
    IF size OPERATOR(pg_catalog.<) 0 THEN
        result := result[greatest(pg_catalog.cardinality(result) OPERATOR(pg_catalog.+) size, 0) OPERATOR(pg_catalog.+) 1:];
    ELSIF size OPERATOR(pg_catalog.<) pg_catalog.cardinality(result) THEN
        result := result[:size];
    END IF;
    RETURN pgdoc.set_at(data, path, pg_catalog.to_jsonb(result));
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.number_key(number numeric) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    -- numeric_send, four hex digits each: digit count, weight of the first digit, sign, scale, then the base-10,000 digits.
    sent pg_catalog.text := pg_catalog.encode(pg_catalog.numeric_send(number), 'hex');
    size pg_catalog.text := pg_catalog.translate(pg_catalog.substr(sent, 5, 1), '0123456789abcdef', '89abcdef01234567') OPERATOR(pg_catalog.||) pg_catalog.substr(sent, 6, 3)
        OPERATOR(pg_catalog.||) pg_catalog.substr(sent, 17);
BEGIN
    RETURN CASE
        WHEN pg_catalog.sign(number) OPERATOR(pg_catalog.=) 1 THEN '22'
            OPERATOR(pg_catalog.||) size OPERATOR(pg_catalog.||) '!'
        WHEN pg_catalog.sign(number) OPERATOR(pg_catalog.=) 0 THEN '21'
        ELSE '20'
            OPERATOR(pg_catalog.||) pg_catalog.translate(size, '0123456789abcdef', 'fedcba9876543210') OPERATOR(pg_catalog.||) '~'
    END;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.scalar_key(value jsonb, longest integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE
        WHEN pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'string' THEN '3'
            OPERATOR(pg_catalog.||) CASE WHEN longest IS NULL THEN value OPERATOR(pg_catalog.#>>) '{}'
                ELSE pg_catalog.left(value OPERATOR(pg_catalog.#>>) '{}', longest) END
        WHEN pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'number' THEN pgdoc.number_key(value::numeric)
        WHEN pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'boolean' THEN CASE WHEN value::boolean
            THEN '61' ELSE '60' END
        ELSE '1'
    END;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.nested_key(value jsonb, longest integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
    result pg_catalog.text;
    deeper pg_catalog.int4 := longest OPERATOR(pg_catalog.-) 1;  -- each level adds a character before those of the next one
BEGIN
    IF longest OPERATOR(pg_catalog.<=) 0 THEN
        RETURN '';
    ELSIF kind OPERATOR(pg_catalog.=) 'object' THEN
        SELECT pg_catalog.string_agg(
            pgdoc.type_rank(field)
                OPERATOR(pg_catalog.||) pg_catalog.replace(key, E'\x01', E'\x01\x02') OPERATOR(pg_catalog.||) E'\x01\x01'
                OPERATOR(pg_catalog.||) pgdoc.nested_key(field, deeper),
            '' ORDER BY key COLLATE pg_catalog."C")
        INTO result
        FROM (SELECT * FROM pg_catalog.jsonb_each(value) AS each(key, field)
            ORDER BY key COLLATE pg_catalog."C" LIMIT longest) AS fields;
        RETURN '4' OPERATOR(pg_catalog.||) coalesce(result, '') OPERATOR(pg_catalog.||) '0';
    ELSIF kind OPERATOR(pg_catalog.=) 'array' AND longest IS NULL THEN
        SELECT pg_catalog.string_agg(pgdoc.nested_key(item, longest), '' ORDER BY place)
        INTO result
        FROM pg_catalog.jsonb_array_elements(value) WITH ORDINALITY AS each(item, place);
        RETURN '5' OPERATOR(pg_catalog.||) coalesce(result, '') OPERATOR(pg_catalog.||) '0';
    ELSIF kind OPERATOR(pg_catalog.=) 'array' THEN
        result := '5';
        FOR i IN 0 .. least(pg_catalog.jsonb_array_length(value), longest) OPERATOR(pg_catalog.-) 1 LOOP
            result := result OPERATOR(pg_catalog.||) pgdoc.nested_key(value OPERATOR(pg_catalog.->) i, deeper);
            EXIT WHEN pg_catalog.octet_length(result) OPERATOR(pg_catalog.>) (4 OPERATOR(pg_catalog.*) longest);
        END LOOP;
        RETURN result OPERATOR(pg_catalog.||) '0';
    ELSIF kind OPERATOR(pg_catalog.=) 'string' THEN
        RETURN pg_catalog.replace(pgdoc.scalar_key(value, longest), E'\x01', E'\x01\x02')
            OPERATOR(pg_catalog.||) E'\x01\x01';
    END IF;
    RETURN pgdoc.scalar_key(value, longest);
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.sort_key(value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
BEGIN
    RETURN CASE
        WHEN kind OPERATOR(pg_catalog.=) 'string' THEN '3'
            OPERATOR(pg_catalog.||) pg_catalog.left(value OPERATOR(pg_catalog.#>>) '{}', 79)
        WHEN kind OPERATOR(pg_catalog.=) 'number' THEN pg_catalog.left(pgdoc.number_key(value::numeric), 80)
        WHEN kind OPERATOR(pg_catalog.=) ANY (ARRAY['object', 'array']) THEN pg_catalog.left(pgdoc.nested_key(value, 80), 80)
        ELSE pgdoc.scalar_key(value, 79)
    END;
END
$$;

-- A value that is nested deeper than pgdoc allows has none: computing it could exceed the stack.
CREATE OR REPLACE FUNCTION pgdoc.sort_rest(value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(value);
    whole pg_catalog.text := CASE
        WHEN kind OPERATOR(pg_catalog.=) ANY (ARRAY['string', 'number']) THEN pgdoc.scalar_key(value, NULL)
        WHEN kind OPERATOR(pg_catalog.=) ANY (ARRAY['object', 'array'])
            AND NOT value OPERATOR(pg_catalog.@?) '$.**{260}' THEN pgdoc.nested_key(value, NULL)
    END;
BEGIN
    RETURN CASE WHEN pg_catalog.octet_length(whole) OPERATOR(pg_catalog.>) 80
        AND pg_catalog.length(whole) OPERATOR(pg_catalog.>) 80 THEN whole END;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.found_keys(data jsonb, path text[]) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    value pg_catalog.jsonb := data OPERATOR(pg_catalog.->) path[1];
    result pg_catalog.text[];
BEGIN
    IF pg_catalog.cardinality(path) OPERATOR(pg_catalog.>) 1
        OR (pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array') IS NOT TRUE THEN
        RETURN ARRAY(SELECT DISTINCT pgdoc.sort_key(item) FROM pgdoc.values_at(data, path) AS each(item));
    END IF;
    result := ARRAY[pgdoc.sort_key(value)];
    FOR i IN 0 .. pg_catalog.jsonb_array_length(value) OPERATOR(pg_catalog.-) 1 LOOP
        result := result OPERATOR(pg_catalog.||) pgdoc.sort_key(value OPERATOR(pg_catalog.->) i);
    END LOOP;
    RETURN result;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.unique_rest(id text, has_array boolean, variadic rests text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE
        WHEN has_array THEN 'id ' OPERATOR(pg_catalog.||) pg_catalog.md5(id)
        WHEN pg_catalog.cardinality(pg_catalog.array_remove(rests, NULL)) OPERATOR(pg_catalog.>) 0
            THEN 'rest ' OPERATOR(pg_catalog.||) pg_catalog.md5(rests::pg_catalog.text)
    END;
END
$$;

CREATE OR REPLACE FUNCTION pgdoc.elements_at(value jsonb, path text[]) RETURNS SETOF jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    item pg_catalog.jsonb;
    index integer := 0;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(path) LOOP
        IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
            FOR item IN SELECT pg_catalog.jsonb_array_elements(value) LOOP
                IF pg_catalog.jsonb_typeof(item) OPERATOR(pg_catalog.=) 'object' THEN
                    RETURN QUERY SELECT pgdoc.elements_at(item, path[i:]);
                END IF;
                IF path[i] OPERATOR(pg_catalog.=) index::pg_catalog.text THEN
                    RETURN QUERY SELECT pgdoc.elements_at(item, path[i OPERATOR(pg_catalog.+) 1:]);
                END IF;
                index := index OPERATOR(pg_catalog.+) 1;
            END LOOP;
            RETURN;
        END IF;
        value := CASE WHEN pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'object'
            THEN value OPERATOR(pg_catalog.->) path[i] END;
    END LOOP;
    IF pg_catalog.jsonb_typeof(value) OPERATOR(pg_catalog.=) 'array' THEN
        RETURN QUERY SELECT pg_catalog.jsonb_array_elements(value);
    ELSIF value IS NOT NULL THEN
        RETURN NEXT value;
    END IF;
END
$$;

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

CREATE OR REPLACE FUNCTION pgdoc.key_span(data jsonb, path text[]) RETURNS pgdoc.key_range
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    least pg_catalog.text;
    greatest pg_catalog.text;
BEGIN
    SELECT pg_catalog.min(key COLLATE pg_catalog."C"), pg_catalog.max(key COLLATE pg_catalog."C") INTO least, greatest
    FROM pg_catalog.unnest(pgdoc.found_keys(data, path)) AS found(key)
    WHERE key COLLATE pg_catalog."C" OPERATOR(pg_catalog.<) '5' OR key COLLATE pg_catalog."C" OPERATOR(pg_catalog.>=) '6';
    RETURN CASE WHEN least IS NOT NULL THEN pgdoc.key_range(least, greatest, '[]') END;
END
$$;
