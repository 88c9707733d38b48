-- Reverts 0004_index.sql. CASCADE also drops the indexes that create_index built on these functions.
DROP FUNCTION pgdoc.exclude(jsonb, jsonb) CASCADE;
DROP FUNCTION pgdoc.include(jsonb, jsonb) CASCADE;
DROP FUNCTION pgdoc.elements_at(jsonb, text[]) CASCADE;
DROP FUNCTION pgdoc.unique_rest(text, boolean, text[]) CASCADE;
DROP FUNCTION pgdoc.found_keys(jsonb, text[]) CASCADE;
DROP FUNCTION pgdoc.sort_keys(jsonb[]) CASCADE;
DROP FUNCTION pgdoc.sort_rest(jsonb) CASCADE;
DROP FUNCTION pgdoc.sort_key(jsonb) CASCADE;
DROP FUNCTION pgdoc.nested_key(jsonb, integer) CASCADE;
DROP FUNCTION pgdoc.scalar_key(jsonb, integer) CASCADE;
DROP FUNCTION pgdoc.number_key(numeric) CASCADE;
