"""A schema with a copy of everything in pg_catalog that a statement can name. Each copy fails and counts its calls.

With `search_path = hostile, pg_catalog`, whatever a statement does not qualify is found there first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

PATH = "hostile, pg_catalog"

_SCHEMA = """
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
CREATE SEQUENCE hostile.calls;  -- a rollback does not undo it
GRANT USAGE ON SEQUENCE hostile.calls TO PUBLIC;
CREATE FUNCTION hostile.caught(what text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
  PERFORM pg_catalog.nextval('hostile.calls');
  RAISE EXCEPTION 'caught: %', what;
END $$;
"""

# Types that a function in PL/pgSQL can't take or return; "any" becomes anyelement.
_COPIES = r"""
DO $body$
DECLARE
  found record;
  arguments text;
BEGIN
  FOR found IN
    SELECT DISTINCT ON (p.proname, types.list) p.proname, types.list AS types,
      CASE WHEN p.proretset THEN 'SETOF ' ELSE '' END || format_type(p.prorettype, NULL) AS returns
    FROM pg_proc p, LATERAL (
      SELECT coalesce(string_agg(
        CASE WHEN p.provariadic <> 0 AND place = p.pronargs THEN 'VARIADIC ' ELSE '' END
        || CASE format_type(type, NULL) WHEN '"any"' THEN
             CASE WHEN p.provariadic <> 0 AND place = p.pronargs THEN 'anyarray' ELSE 'anyelement' END
           ELSE format_type(type, NULL) END, ', ' ORDER BY place), '') AS list
      FROM unnest(p.proargtypes) WITH ORDINALITY AS argument(type, place)) AS types
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind <> 'p'
    ORDER BY p.proname, types.list
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', found.proname, found.types,
        CASE WHEN found.returns IN ('record', 'SETOF record') THEN 'boolean' ELSE found.returns END,
        format('BEGIN PERFORM hostile.caught(%L); END', 'function ' || found.proname || '(' || found.types || ')'));
    EXCEPTION WHEN OTHERS THEN
      NULL;  -- a pseudo-type
    END;
  END LOOP;
  FOR found IN
    SELECT o.oprname, format_type(o.oprleft, NULL) AS l, format_type(o.oprright, NULL) AS r,
      format_type(o.oprresult, NULL) AS result, o.oid
    FROM pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION hostile.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', 'operator ' || found.oid,
        found.l, found.r, found.result,
        format('BEGIN PERFORM hostile.caught(%L); END', 'operator ' || found.l || found.oprname || found.r));
      EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.%I, LEFTARG = %s, RIGHTARG = %s)',
        found.oprname, 'operator ' || found.oid, found.l, found.r);
    EXCEPTION WHEN OTHERS THEN
      NULL;
    END;
  END LOOP;
  FOR found IN
    SELECT t.typname FROM pg_type t
    WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype = 'b' AND t.typcategory <> 'A'
  LOOP
    EXECUTE format('CREATE DOMAIN hostile.%I AS pg_catalog.%1$I CHECK (hostile.caught(%L))',
      found.typname, 'type ' || found.typname);
  END LOOP;
  FOR found IN
    SELECT c.relname, string_agg(
      quote_ident(a.attname) || CASE a.atttypid WHEN 'anyarray'::regtype THEN '::text' ELSE '' END, ', '
      ORDER BY a.attnum) AS columns
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
      AND c.relname <> 'pg_statistic_ext_data'
    GROUP BY c.relname
  LOOP
    EXECUTE format('CREATE VIEW hostile.%I AS SELECT %s FROM pg_catalog.%1$I WHERE hostile.caught(%3$L)',
      found.relname, found.columns, 'relation ' || found.relname);
    EXECUTE format('GRANT SELECT ON hostile.%I TO PUBLIC', found.relname);
  END LOOP;
END $body$;
CREATE COLLATION hostile."C" (provider = libc, locale = 'POSIX');
"""


def create_hostile_schema(admin: psycopg.Connection[Any]) -> None:
    """Create the schema, on a superuser's connection whose search_path is pg_catalog."""
    admin.execute(_SCHEMA.encode())
    admin.execute(_COPIES.encode())


def put_first(admin: psycopg.Connection[Any], database: str, roles: list[str]) -> None:
    """Make the schema the first in the search_path of all later sessions."""
    admin.execute(sql.SQL("ALTER DATABASE {} SET search_path = {}").format(sql.Identifier(database), sql.SQL(PATH)))
    for role in roles:
        statement = sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = {}")
        admin.execute(statement.format(sql.Identifier(role), sql.Identifier(database), sql.SQL(PATH)))


def was_called(admin: psycopg.Connection[Any]) -> bool:
    """Whether anything in the schema was called; the errors say what."""
    return admin.execute("SELECT is_called FROM hostile.calls").fetchone() == (True,)
