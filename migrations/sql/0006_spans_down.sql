-- CASCADE also drops the index parts that use the function; `create_index` rebuilds such an index.
DROP FUNCTION pgdoc.key_span CASCADE;
DROP TYPE pgdoc.key_range;
