-- Reverts 0004_update.sql.
DROP FUNCTION
    pgdoc.push_at(jsonb, text[], jsonb, integer, jsonb, integer),
    pgdoc.sorted_items(jsonb[], text[], boolean),
    pgdoc.sort_parts(jsonb),
    pgdoc.add_to_set_at(jsonb, text[], jsonb),
    pgdoc.pop_at(jsonb, text[], boolean),
    pgdoc.pull_all_at(jsonb, text[], jsonb),
    pgdoc.keep_at(jsonb, text[], jsonb),
    pgdoc.could_be_at(jsonb, text[]),
    pgdoc.put_items(jsonb, text[], jsonb),
    pgdoc.items_at(jsonb, text[]),
    pgdoc.rename_at(jsonb, text[], text[]),
    pgdoc.bound_at(jsonb, text[], jsonb, integer),
    pgdoc.multiply_at(jsonb, text[], numeric);
DROP TYPE pgdoc.sort_part;

CREATE OR REPLACE FUNCTION pgdoc.increment_at(data jsonb, path text[], amount numeric) RETURNS jsonb
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

DROP FUNCTION pgdoc.transaction_time();
