ALTER FUNCTION pgdoc.found_keys(jsonb, text[]) COST 100;
COMMENT ON FUNCTION pgdoc.values_at IS
    'All values that a filter finds at a path: for an array at its end, the array and each of its items; NULL for a missing value';
DROP FUNCTION pgdoc.tested_values(jsonb, text[]);
