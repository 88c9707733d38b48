-- What an index of ranges over arrays needs.

CREATE TYPE pgdoc.key_range AS RANGE (SUBTYPE = text, COLLATION = "C");
COMMENT ON TYPE pgdoc.key_range IS 'Sort keys from one to another';

-- Without the keys of arrays: that of an array itself would make each span reach from its items to there.
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
COMMENT ON FUNCTION pgdoc.key_span IS 'From the least to the greatest sort_key that a filter finds at a path, arrays excepted; NULL for none';
