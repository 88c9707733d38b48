-- Checks of the server, and of what is in it.

-- name: foreign_owner
-- The owner of the catalog, if that role could do something as a superuser by way of this session. SET ROLE does not help:
-- a function can reset it.
SELECT pg_get_userbyid(n.nspowner)
FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner
WHERE n.nspname = 'pgdoc' AND NOT o.rolsuper
  AND EXISTS (SELECT FROM pg_roles r WHERE r.rolsuper AND (r.rolname = session_user OR r.rolname = current_user))

-- name: session
-- The session that runs this statement, and its age. The age is NULL if the role may not see it.
SELECT pid, extract(epoch FROM clock_timestamp() - backend_start)::float8 FROM pg_stat_activity WHERE pid = pg_backend_pid()

-- name: session_settings
-- These settings of the session; NULL for one that the server does not have.
SELECT name, current_setting(name, true) FROM unnest(%s::text[]) AS name

-- name: create_collection
SELECT pgdoc.create_collection(%s, %s, %s::bigint, %s::text, %s::jsonpath)

-- name: create_partitioned
SELECT pgdoc.create_collection(%s, %s, %s::bigint, %s::text, %s::jsonpath, %s::integer)

-- name: drop_collection
SELECT pgdoc.drop_collection(%s, %s)

-- name: rename_collection
SELECT pgdoc.rename_collection(%s, %s, %s)

-- name: collections
SELECT name FROM pgdoc.collections(%s) AS name

-- name: find_table
-- The table of this name, what it is, and the comments of its valid indexes; whether something may keep a write from a row
-- without an error (see `obstacles` of documents.sql), whether more than the id can refuse a document, the limit, the JSON
-- Schema, and whether its documents expire and this session may delete them. Unlike pgdoc.find_collection it raises no error, which would abort a transaction. `newer`: it was created after this statement's
-- snapshot.
WITH found AS MATERIALIZED (SELECT pg_catalog.to_regclass(%s::pg_catalog.text)::pg_catalog.oid AS oid)
SELECT oid::pg_catalog.int8,
  CASE
    WHEN oid IS NULL THEN 'missing'
    WHEN pgdoc.is_collection(oid) THEN 'collection'
    WHEN NOT pgdoc.is_bound() THEN 'unbound'
    WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) found.oid) THEN 'newer'
    ELSE 'foreign'
  END,
  ARRAY(SELECT pg_catalog.obj_description(i.indexrelid, 'pg_class'::pg_catalog.name) FROM pg_catalog.pg_index i
        WHERE i.indrelid OPERATOR(pg_catalog.=) found.oid AND i.indisvalid),
  EXISTS (SELECT FROM pg_class c WHERE c.oid = found.oid AND (c.relrowsecurity OR c.relhasrules))
  OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = ANY (parts) AND NOT t.tgisinternal AND t.tgenabled <> 'D'
             AND t.tgtype & 3 = 3 AND t.tgfoid <> 'pgdoc.before_update'::regproc),
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = ANY (parts) AND NOT i.indisprimary
          AND (i.indisunique OR i.indisexclusion)),
  pgdoc.max_size(oid),
  pgdoc.json_schema(oid),
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = found.oid AND i.indisvalid
          AND pgdoc.expiry_definition(i.indexrelid) IS NOT NULL)
  AND pgdoc.expiry_obstacle(oid) IS NULL
FROM found, LATERAL (SELECT found.oid || ARRAY(SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = found.oid) AS parts) AS with_parts

-- name: schema_exists
SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL

-- name: add_table
SELECT pgdoc.add_table(relation::regclass, %s::text) FROM to_regclass(format('%%I.%%I', %s::text, %s::text)) AS relation
WHERE relation IS NOT NULL

-- name: remove_table
SELECT pgdoc.remove_table(relation::regclass) FROM to_regclass(format('%%I.%%I', %s::text, %s::text)) AS relation
WHERE relation IS NOT NULL

-- name: tables
SELECT schema_name, name, document, key, columns, since - '0/0'::pg_lsn FROM pgdoc.tables()
