-- Reverts 0009_updates.sql.
SET LOCAL search_path = pg_catalog, pg_temp;

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

DROP FUNCTION pgdoc.bit_at(jsonb, text[], jsonb);
