-- Reverts 0007_paths.sql, but for the bodies of functions: they do the same as those of 0006.
ALTER FUNCTION pgdoc.refuse_insert() RESET search_path;
ALTER FUNCTION pgdoc.set_metadata(jsonb) RESET search_path;
ALTER FUNCTION pgdoc.published_since(text, text[]) RESET search_path;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgdoc TO PUBLIC;
