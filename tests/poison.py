"""Rows that the server can't send: values of a type whose output function fails, which is quicker than a text of 1 GB.

The server reports both in the same way: an error inside a callback of the output plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

UNPRINTABLE_TYPE = """
CREATE TYPE public.unprintable;
CREATE FUNCTION public.read_unprintable(cstring) RETURNS public.unprintable
  LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION public.print_unprintable(public.unprintable) RETURNS cstring
  LANGUAGE internal STABLE STRICT AS 'enum_out';
CREATE TYPE public.unprintable (INPUT = public.read_unprintable, OUTPUT = public.print_unprintable, LIKE = int4)
"""
_TABLE = """
CREATE TABLE docs.{name} (
  id text PRIMARY KEY, data jsonb NOT NULL,
  version bigint NOT NULL DEFAULT 1, replaced_version bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
  extra public.unprintable)
"""


def make_poisonous(connection: psycopg.Connection, *names: str, plain: tuple[str, ...] = ()) -> None:
    """Create collections, and plain tables, whose rows can be poisonous."""
    connection.execute(UNPRINTABLE_TYPE.encode())
    for name in (*names, *plain):
        connection.execute(_TABLE.format(name=name).encode())
    for name in names:
        connection.execute("SELECT pgdoc.register(%s::regclass)", [f"docs.{name}"])


def insert_poison(connection: psycopg.Connection, name: str, document_id: str = "poison") -> None:
    """Insert a row that no plugin can send."""
    connection.execute(f"INSERT INTO docs.{name} (id, data, extra) VALUES (%s, '{{}}', '7')".encode(), [document_id])
