-- Functions of an index for ranges over arrays.

CREATE TYPE pgdoc.key_range AS RANGE (SUBTYPE = text, COLLATION = "C");
COMMENT ON TYPE pgdoc.key_range IS 'A range of sort keys';

-- Leaves out the keys of arrays themselves: they sort after the keys of numbers and strings, and would stretch every span
-- from the items up to the arrays.
CREATE FUNCTION pgdoc.key_span(data jsonb, path text[]) RETURNS pgdoc.key_range
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    least text;
    greatest text;
BEGIN
    SELECT min(key COLLATE "C"), max(key COLLATE "C") INTO least, greatest
    FROM unnest(pgdoc.found_keys(data, path)) AS found(key)
    WHERE key COLLATE "C" < '5' OR key COLLATE "C" >= '6';
    RETURN CASE WHEN least IS NOT NULL THEN pgdoc.key_range(least, greatest, '[]') END;
END
$$;
COMMENT ON FUNCTION pgdoc.key_span IS 'The range of the sort_key values that a filter finds at a path, except those of arrays; NULL if there are none';
