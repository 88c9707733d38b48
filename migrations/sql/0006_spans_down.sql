-- Parts of indexes go with it; `create_index` builds such an index anew.
DROP FUNCTION pgdoc.key_span CASCADE;
DROP TYPE pgdoc.key_range;
