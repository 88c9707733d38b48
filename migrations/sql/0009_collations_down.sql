-- An index with a collation goes with the functions.
DROP FUNCTION pgdoc.collated_field CASCADE;
DROP FUNCTION pgdoc.collated CASCADE;
DROP FUNCTION pgdoc.collated_part CASCADE;
DROP FUNCTION pgdoc.folded CASCADE;
DROP FUNCTION pgdoc.decomposed CASCADE;
DROP FUNCTION pgdoc.decomposed_piece CASCADE;
