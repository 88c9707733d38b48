-- What `pgdoc grant` has to know. It reads only PostgreSQL's own catalogs: a superuser must not execute or read anything of a
-- catalog that another role owns.

-- name: server
-- `catalog_owner` is NULL without a catalog, `schema_owner` for a schema that does not exist.
SELECT current_setting('server_version_num')::int AS version, current_database()::text AS database, current_user::text AS grantor,
  (SELECT u.rolsuper FROM pg_roles u WHERE u.rolname = current_user) AS grantor_is_superuser,
  c.rolname::text AS catalog_owner, coalesce(c.rolsuper, false) AS catalog_owner_is_superuser,
  coalesce(c.rolinherit, true) AS catalog_owner_inherits,
  EXISTS (
    SELECT FROM pg_class t JOIN pg_namespace s ON s.oid = t.relnamespace
    WHERE s.nspname = %(schema)s::name AND t.relkind = ANY (ARRAY['r'::"char", 'p'::"char", 'v'::"char"]) AND NOT EXISTS (
      SELECT FROM pg_trigger g WHERE g.tgrelid = t.oid AND g.tgname = 'pgdoc_before_update'::name)) AS has_other_tables,
  (SELECT pg_get_userbyid(p.pubowner)::text FROM pg_publication p WHERE p.pubname = 'pgdoc') AS publication_owner,
  (SELECT pg_get_userbyid(s.nspowner)::text FROM pg_namespace s WHERE s.nspname = %(schema)s::name) AS schema_owner,
  EXISTS (SELECT FROM pg_roles g JOIN pg_roles a ON a.rolname = 'rdsadmin'::name AND a.rolsuper
          WHERE g.rolname = 'rds_replication'::name) AS has_rds_replication,
  ARRAY(SELECT wanted.name FROM unnest(%(tables)s::text[]) AS wanted(name) WHERE (to_regclass(wanted.name) IS NULL)
        UNION ALL
        SELECT 'pgdoc.messages'::text WHERE to_regclass('pgdoc.messages') IS NULL
        UNION ALL
        SELECT wanted.name FROM unnest(%(functions)s::text[]) AS wanted(name) WHERE (to_regprocedure(wanted.name) IS NULL)) AS missing
FROM (SELECT) AS one LEFT JOIN pg_namespace n ON n.nspname = 'pgdoc'::name LEFT JOIN pg_roles c ON c.oid = n.nspowner

-- name: role
-- What the role has, also by way of PUBLIC or of a role that it is a member of. REPLICATION is an attribute, which no member inherits.
SELECT r.rolsuper AS is_superuser, r.rolcanlogin AS can_login, r.rolbypassrls AS bypasses_policies,
  r.rolreplication OR EXISTS (
    SELECT FROM pg_roles g JOIN pg_roles a ON a.rolname = 'rdsadmin'::name AND a.rolsuper
    WHERE g.rolname = 'rds_replication'::name AND pg_has_role(r.oid, g.oid, 'MEMBER')) AS may_replicate,
  has_database_privilege(r.oid, current_database()::text, 'CONNECT') AS connects,
  coalesce((SELECT has_schema_privilege(r.oid, s.oid, 'USAGE') FROM pg_namespace s WHERE s.nspname = %(schema)s::name), false) AS uses_schema,
  coalesce((SELECT has_schema_privilege(r.oid, s.oid, 'CREATE') FROM pg_namespace s WHERE s.nspname = %(schema)s::name), false) AS creates,
  (SELECT bool_and(has_function_privilege(r.oid, to_regprocedure(wanted.name)::oid, 'EXECUTE'))
     FROM unnest(%(functions)s::text[]) AS wanted(name)) AS registers,
  (SELECT bool_and(has_table_privilege(r.oid, to_regclass(wanted.name)::oid, needed.privilege))
     FROM unnest(%(tables)s::text[]) AS wanted(name),
       unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed(privilege)) AS writes_consumers,
  has_function_privilege(r.oid, to_regprocedure('pgdoc.publish(text, jsonb, text)')::oid, 'EXECUTE') AS publishes,
  coalesce((SELECT pg_has_role(n.nspowner, r.oid, 'USAGE') FROM pg_namespace n WHERE n.nspname = 'pgdoc'::name), false) AS is_published_for,
  coalesce((SELECT pg_has_role(r.oid, n.nspowner, 'MEMBER') FROM pg_namespace n WHERE n.nspname = 'pgdoc'::name), false) AS acts_as_catalog_owner
FROM pg_roles r WHERE r.rolname = %(role)s::name

-- name: collections
-- The tables of a schema that have the trigger and a column of a collection: a role with TRIGGER on a table can add the one, but
-- only its owner the other.
SELECT c.relname::text AS name, pg_get_userbyid(c.relowner)::text AS owner,
  has_table_privilege(r.oid, c.oid, 'SELECT') AS reads,
  has_table_privilege(r.oid, c.oid, 'INSERT') AND has_table_privilege(r.oid, c.oid, 'UPDATE')
    AND has_table_privilege(r.oid, c.oid, 'DELETE') AS writes,
  c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE')) AS has_policies
FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace JOIN pg_roles r ON r.rolname = %(role)s::name
WHERE s.nspname = %(schema)s::name AND (c.relkind = 'r' OR c.relkind = 'p') AND NOT c.relispartition AND EXISTS (
  SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_namespace n ON n.oid = f.pronamespace
    JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attname = 'replaced_version'::name
  WHERE t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'::name AND f.proname = 'before_update'::name AND n.nspname = 'pgdoc'::name)
ORDER BY c.relname

-- name: tables
-- The tables that are watched as they are: those of the publication that are no collections.
SELECT s.nspname::text AS schema, c.relname::text AS name, pg_get_userbyid(c.relowner)::text AS owner,
  has_schema_privilege(r.oid, s.oid, 'USAGE') AS uses_schema, pg_get_userbyid(s.nspowner)::text AS schema_owner,
  has_table_privilege(r.oid, c.oid, 'SELECT') AS reads,
  c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE')) AS has_policies
FROM pg_publication p JOIN pg_publication_rel m ON m.prpubid = p.oid JOIN pg_class c ON c.oid = m.prrelid
  JOIN pg_namespace s ON s.oid = c.relnamespace JOIN pg_roles r ON r.rolname = %(role)s::name
WHERE p.pubname = 'pgdoc'::name AND s.nspname <> 'pgdoc'::name AND NOT EXISTS (
  SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_namespace n ON n.oid = f.pronamespace
    JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attname = 'replaced_version'::name
  WHERE t.tgrelid = c.oid AND t.tgname = 'pgdoc_before_update'::name AND f.proname = 'before_update'::name AND n.nspname = 'pgdoc'::name)
ORDER BY s.nspname, c.relname

-- name: creators
-- The roles whose later tables in the schema can be collections: its owner, those that own one, and those that may create
-- and register one. Superusers count if they have created one, or own the schema; not where a plain role owns the catalog,
-- which they do not use. `defaults` is what their default privileges give to the role.
SELECT o.rolname::text AS name, ARRAY(
  SELECT acl.privilege_type::text FROM pg_default_acl d CROSS JOIN aclexplode(d.defaclacl) AS acl
  WHERE d.defaclrole = o.oid AND d.defaclobjtype = 'r' AND acl.grantee = r.oid
    AND (d.defaclnamespace = s.oid OR d.defaclnamespace::bigint = 0)) AS defaults
FROM pg_roles o JOIN pg_roles r ON r.rolname = %(role)s::name LEFT JOIN pg_namespace s ON s.nspname = %(schema)s::name
  LEFT JOIN pg_namespace g ON g.nspname = 'pgdoc'::name LEFT JOIN pg_roles c ON c.oid = g.nspowner
WHERE o.oid <> r.oid AND NOT starts_with(o.rolname::text, 'pg_') AND (
  o.rolname = ANY (%(creators)s::name[])
  OR (o.oid = s.nspowner AND (c.rolsuper OR NOT o.rolsuper))
  OR EXISTS (
    SELECT FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_namespace n ON n.oid = f.pronamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'replaced_version'::name
    WHERE c.relnamespace = s.oid AND c.relowner = o.oid AND t.tgname = 'pgdoc_before_update'::name AND n.nspname = 'pgdoc'::name)
  OR (NOT o.rolsuper AND has_schema_privilege(o.oid, s.oid, 'CREATE')
    AND has_function_privilege(o.oid, to_regprocedure('pgdoc.enter_collection(regclass)')::oid, 'EXECUTE')))
ORDER BY o.rolname

-- name: readers
-- The roles that later tables of other creators in the schema are granted to, and what of.
SELECT g.rolname::text AS name, bool_or(acl.privilege_type = 'INSERT') AS writes
FROM pg_default_acl d JOIN pg_namespace s ON s.oid = d.defaclnamespace CROSS JOIN aclexplode(d.defaclacl) AS acl
  JOIN pg_roles g ON g.oid = acl.grantee JOIN pg_roles r ON r.rolname = %(role)s::name
WHERE s.nspname = %(schema)s::name AND d.defaclobjtype = 'r' AND d.defaclrole <> r.oid AND g.oid <> r.oid AND NOT EXISTS (
  SELECT FROM pg_default_acl k CROSS JOIN aclexplode(k.defaclacl) AS held
  WHERE k.defaclrole = r.oid AND k.defaclobjtype = 'r' AND k.defaclnamespace = s.oid AND held.grantee = g.oid)
GROUP BY g.rolname
ORDER BY g.rolname
