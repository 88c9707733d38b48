-- Takes back 0004_index.sql; an index of create_index is of no use without these functions, and goes with them.
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
