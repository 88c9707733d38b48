-- Reverts 0009_validation.sql. The checks pgdoc_schema stay: they need nothing of the schema pgdoc.
DROP FUNCTION pgdoc.create_collection(text, text, bigint, text, jsonpath), pgdoc.set_json_schema, pgdoc.json_schema;
