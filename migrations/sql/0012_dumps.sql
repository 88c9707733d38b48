-- The functions of indexes run as the owner of the catalog. A dump grants USAGE on the schema pgdoc after it builds the indexes,
-- which PostgreSQL does as the owner of each table. That role may not look up what these functions call, and the dump would be
-- restored without the indexes. They compute a value from their arguments, and every name in them is qualified.
ALTER FUNCTION pgdoc.sort_key(jsonb) SECURITY DEFINER;
ALTER FUNCTION pgdoc.sort_rest(jsonb) SECURITY DEFINER;
ALTER FUNCTION pgdoc.found_keys(jsonb, text[]) SECURITY DEFINER;
ALTER FUNCTION pgdoc.key_span(jsonb, text[]) SECURITY DEFINER;
ALTER FUNCTION pgdoc.expiry_time(jsonb, text[]) SECURITY DEFINER;
ALTER FUNCTION pgdoc.collated(jsonb, text) SECURITY DEFINER;
