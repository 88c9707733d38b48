-- Reverts 0004_filter.sql.
DROP FUNCTION pgdoc.element_documents(jsonb);
DROP FUNCTION pgdoc.ends_at(jsonb, text[]);
DROP FUNCTION pgdoc.type_of(jsonb);
