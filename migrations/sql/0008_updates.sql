-- Updates whose cost grows with the size of the document and of the update, but not with their product; and the error for a
-- collection that was created again.

-- As in 0007, functions whose body is SQL are bound under this search_path; those in PL/pgSQL name pg_catalog everywhere.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Hashes the items: comparing each with each took 10 s for 500 items and an array of 80,000.
CREATE OR REPLACE FUNCTION pgdoc.pull_all_at(data jsonb, path text[], pulled jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pgdoc.keep_at(data, path, (
        SELECT coalesce(jsonb_agg(item ORDER BY place), '[]')
        FROM pgdoc.items_at(data, path) WITH ORDINALITY AS found(item, place)
        WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(pulled) AS given(other) WHERE other = item)
    ));

CREATE FUNCTION pgdoc.new_items(found jsonb, items jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (
        SELECT coalesce(jsonb_agg(item ORDER BY place), '[]')
        FROM (SELECT DISTINCT ON (item) item, place
              FROM jsonb_array_elements(items) WITH ORDINALITY AS given(item, place)
              ORDER BY item, place) AS new
        WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(found) AS there(other) WHERE other = item)
    );
COMMENT ON FUNCTION pgdoc.new_items IS 'The items that an array lacks, each once';

CREATE OR REPLACE FUNCTION pgdoc.add_to_set_at(data jsonb, path text[], items jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found pg_catalog.jsonb := coalesce(pgdoc.value_at(data, path), '[]');
BEGIN
    IF pg_catalog.jsonb_typeof(found) OPERATOR(pg_catalog.<>) 'array' THEN
        RETURN NULL;
    END IF;
    RETURN pgdoc.set_at(data, path, found OPERATOR(pg_catalog.||) pgdoc.new_items(found, items));
END
$$;

-- `step` is an array of the operator and its operands, as `pgdoc.query.updates.tree` writes it. The value is the only field,
-- '', of `data`, or is missing; so the functions for one change do the work.
CREATE FUNCTION pgdoc.change_value(data jsonb, step jsonb, moment jsonb) RETURNS jsonb
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
COMMENT ON FUNCTION pgdoc.change_value IS 'The field '''' of the data after one step of an update; NULL if it does not fit';

-- A tree has the steps of many changes at their paths: an array is a step, null is $unset, and an object has the trees of the
-- fields or items below; if it has the field '', a path, they are below that path. Each object and array where paths part is
-- taken apart and put together once, while a function per change would copy the whole document each time.
CREATE FUNCTION pgdoc.change_tree(node jsonb, tree jsonb, moment jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    kind pg_catalog.text := pg_catalog.jsonb_typeof(node);
    part pg_catalog.text;
    step pg_catalog.jsonb;
    item pg_catalog.jsonb;
    below pg_catalog.text[];
    inner_item pg_catalog.jsonb;
    size integer;
    place integer;
    items pg_catalog.jsonb[];
    names pg_catalog.text[] := '{}';
    changed pg_catalog.jsonb[] := '{}';
    unset pg_catalog.text[] := '{}';
BEGIN
    IF kind OPERATOR(pg_catalog.=) 'object' THEN
        node := node OPERATOR(pg_catalog.||) '{}';  -- read from disk and decompressed once
    ELSIF kind OPERATOR(pg_catalog.=) 'array' THEN
        items := ARRAY(SELECT pg_catalog.jsonb_array_elements(node));
        size := pg_catalog.cardinality(items);
    END IF;
    -- jsonb keeps keys in the order of their lengths, and so indexes in that of the numbers: no step applies to nulls that
    -- another step added before its own item.
    FOR part, step IN SELECT * FROM pg_catalog.jsonb_each(tree) LOOP
        IF kind OPERATOR(pg_catalog.=) 'object' THEN
            item := node OPERATOR(pg_catalog.->) part;
        ELSIF kind OPERATOR(pg_catalog.=) 'array' AND part OPERATOR(pg_catalog.~) '^(0|[1-9][0-9]{0,8})$' THEN
            place := part::integer;
            item := CASE WHEN place OPERATOR(pg_catalog.<) size THEN items[place OPERATOR(pg_catalog.+) 1] END;
        ELSIF pg_catalog.jsonb_path_exists(step, 'strict $.** ? (@.type() == "array")') THEN
            RETURN NULL;
        ELSE
            CONTINUE;  -- nothing but $unset, which always fits
        END IF;
        IF pg_catalog.jsonb_typeof(step) OPERATOR(pg_catalog.=) 'null' THEN
            CONTINUE WHEN item IS NULL;
            item := NULL;
        ELSIF pg_catalog.jsonb_typeof(step) OPERATOR(pg_catalog.=) 'object' THEN
            below := ARRAY(SELECT pg_catalog.jsonb_array_elements_text(coalesce(step OPERATOR(pg_catalog.->) '', '[]')));
            step := step OPERATOR(pg_catalog.-) '';
            inner_item := pgdoc.value_at(item, below);
            IF inner_item IS NULL THEN
                inner_item := pgdoc.change_tree('{}', step, moment);
                IF inner_item OPERATOR(pg_catalog.=) '{}' THEN  -- no step creates anything
                    IF NOT coalesce(pgdoc.could_be_at(item, below), true)
                        AND pg_catalog.jsonb_path_exists(step, 'strict $.** ? (@.type() == "array")') THEN
                        RETURN NULL;
                    END IF;
                    CONTINUE;
                END IF;
            ELSE
                inner_item := pgdoc.change_tree(inner_item, step, moment);
            END IF;
            IF pg_catalog.cardinality(below) OPERATOR(pg_catalog.=) 0 THEN
                item := inner_item;
            ELSE
                item := pgdoc.set_at(  -- set_at needs an object
                    CASE WHEN item IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('', item) END,
                    '{""}'::pg_catalog.text[] OPERATOR(pg_catalog.||) below, inner_item) OPERATOR(pg_catalog.->) '';
            END IF;
            IF item IS NULL THEN
                RETURN NULL;
            END IF;
        ELSE
            item := pgdoc.change_value(
                CASE WHEN item IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('', item) END, step, moment);
            IF item IS NULL THEN
                RETURN NULL;
            END IF;
            item := item OPERATOR(pg_catalog.->) '';
            CONTINUE WHEN item IS NULL;  -- it is missing, and the step creates nothing
        END IF;
        IF kind OPERATOR(pg_catalog.=) 'object' THEN
            IF item IS NULL THEN
                unset := unset OPERATOR(pg_catalog.||) part;
            ELSE
                names := names OPERATOR(pg_catalog.||) part;
                changed := changed OPERATOR(pg_catalog.||) item;
            END IF;
            CONTINUE;
        END IF;
        IF place OPERATOR(pg_catalog.>) size THEN
            IF place OPERATOR(pg_catalog.-) size OPERATOR(pg_catalog.>) 1500000 THEN
                RETURN NULL;
            END IF;
            items := items OPERATOR(pg_catalog.||)
                pg_catalog.array_fill('null'::pg_catalog.jsonb, ARRAY[place OPERATOR(pg_catalog.-) size]);
            size := place;
        END IF;
        items[place OPERATOR(pg_catalog.+) 1] := coalesce(item, 'null');
        size := greatest(size, place OPERATOR(pg_catalog.+) 1);
    END LOOP;
    IF kind OPERATOR(pg_catalog.=) 'array' THEN
        RETURN pg_catalog.to_jsonb(items);
    ELSIF kind OPERATOR(pg_catalog.<>) 'object' THEN
        RETURN node;
    END IF;
    IF pg_catalog.cardinality(unset) OPERATOR(pg_catalog.>) 0 THEN
        node := node OPERATOR(pg_catalog.-) unset;
    END IF;
    IF pg_catalog.cardinality(names) OPERATOR(pg_catalog.=) 0 THEN
        RETURN node;
    END IF;
    RETURN node OPERATOR(pg_catalog.||)
        (SELECT pg_catalog.jsonb_object_agg(field, value)
         FROM ROWS FROM (pg_catalog.unnest(names), pg_catalog.unnest(changed)) AS fields(field, value));
END
$$;
COMMENT ON FUNCTION pgdoc.change_tree IS 'The value after all steps of a tree of changes; NULL if one does not fit';

-- Run again, the call finds a collection that was created under this name after another one; but not a foreign table. What
-- is newer than the snapshot of the transaction can be either.
CREATE OR REPLACE FUNCTION pgdoc.refuse_table(schema_and_name text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation oid := to_regclass(schema_and_name);
BEGIN
    RAISE EXCEPTION 'table % is not the collection that it was', schema_and_name USING ERRCODE = CASE
        WHEN pgdoc.is_collection(relation) OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = relation) THEN 'PGD04'
        ELSE 'PGD02'
    END;
END $$;
