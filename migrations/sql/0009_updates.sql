-- $bit.

-- As in 0007, functions in PL/pgSQL name pg_catalog everywhere.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE FUNCTION pgdoc.bit_at(data jsonb, path text[], operations jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found pg_catalog.jsonb := coalesce(pgdoc.value_at(data, path), '0');
    number bigint;
    operation pg_catalog.jsonb;
    name pg_catalog.text;
    operand bigint;
BEGIN
    IF NOT pgdoc.type_of(found) OPERATOR(pg_catalog.=) ANY (ARRAY['int', 'long']) THEN
        RETURN NULL;
    END IF;
    number := found::bigint;
    FOR operation IN SELECT pg_catalog.jsonb_array_elements(operations) LOOP
        name := operation OPERATOR(pg_catalog.->>) 0;
        operand := (operation OPERATOR(pg_catalog.->) 1)::bigint;
        number := CASE WHEN name OPERATOR(pg_catalog.=) 'and' THEN number OPERATOR(pg_catalog.&) operand
                       WHEN name OPERATOR(pg_catalog.=) 'or' THEN number OPERATOR(pg_catalog.|) operand
                       ELSE number OPERATOR(pg_catalog.#) operand END;
    END LOOP;
    RETURN pgdoc.set_at(data, path, pg_catalog.to_jsonb(number));
END
$$;
COMMENT ON FUNCTION pgdoc.bit_at IS 'The data after and, or and xor with the integer at the path; NULL if it does not fit';

-- In addition to those of 0008, the step $bit.
CREATE OR REPLACE FUNCTION pgdoc.change_value(data jsonb, step jsonb, moment jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    name pg_catalog.text := step OPERATOR(pg_catalog.->>) 0;
    operand pg_catalog.jsonb := step OPERATOR(pg_catalog.->) 1;
BEGIN
    IF name OPERATOR(pg_catalog.=) '$set' THEN
        RETURN pg_catalog.jsonb_build_object('', operand);
    ELSIF name OPERATOR(pg_catalog.=) '$inc' THEN
        RETURN pgdoc.increment_at(data, '{""}', operand::numeric);
    ELSIF name OPERATOR(pg_catalog.=) '$mul' THEN
        RETURN pgdoc.multiply_at(data, '{""}', operand::numeric);
    ELSIF name OPERATOR(pg_catalog.=) '$min' THEN
        RETURN pgdoc.bound_at(data, '{""}', operand, -1);
    ELSIF name OPERATOR(pg_catalog.=) '$max' THEN
        RETURN pgdoc.bound_at(data, '{""}', operand, 1);
    ELSIF name OPERATOR(pg_catalog.=) '$bit' THEN
        RETURN pgdoc.bit_at(data, '{""}', operand);
    ELSIF name OPERATOR(pg_catalog.=) '$currentDate' THEN
        RETURN pg_catalog.jsonb_build_object('', moment);
    ELSIF name OPERATOR(pg_catalog.=) '$push' THEN
        RETURN pgdoc.push_at(data, '{""}', operand, (step OPERATOR(pg_catalog.->>) 2)::integer,
            step OPERATOR(pg_catalog.->) 3, (step OPERATOR(pg_catalog.->>) 4)::integer);
    ELSIF name OPERATOR(pg_catalog.=) '$addToSet' THEN
        RETURN pgdoc.add_to_set_at(data, '{""}', operand);
    ELSIF name OPERATOR(pg_catalog.=) '$pop' THEN
        RETURN pgdoc.pop_at(data, '{""}', operand::boolean);
    ELSIF name OPERATOR(pg_catalog.=) '$pullAll' THEN
        RETURN pgdoc.pull_all_at(data, '{""}', operand);
    END IF;
    RAISE EXCEPTION 'unknown step %', step;
END
$$;
