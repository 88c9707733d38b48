-- Checks of the server, and of what is in it.

-- name: foreign_owner
-- The owner of the catalog, if that role could do something as a superuser by way of this session. SET ROLE does not help:
-- a function can reset it.
SELECT pg_get_userbyid(n.nspowner)
FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner
WHERE n.nspname = 'pgdoc' AND NOT o.rolsuper
  AND EXISTS (SELECT FROM pg_roles r WHERE r.rolsuper AND (r.rolname = session_user OR r.rolname = current_user))

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
