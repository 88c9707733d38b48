-- name: create_collection
SELECT pgdoc.create_collection(%s, %s)

-- name: drop_collection
SELECT pgdoc.drop_collection(%s, %s)

-- name: rename_collection
SELECT pgdoc.rename_collection(%s, %s, %s)

-- name: collections
SELECT name FROM pgdoc.collections(%s) AS name

-- name: table_exists
SELECT to_regclass(%s) IS NOT NULL

-- name: schema_exists
SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL
