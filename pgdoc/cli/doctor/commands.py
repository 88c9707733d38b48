"""Commands for a person or a program to run: SQL and shell, with every name quoted.

A name is another role's text. It must not end its quotes, and a terminal must not act on it.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from psycopg.conninfo import make_conninfo

from pgdoc.database.quoting import as_literal
from pgdoc.database.quoting import identifier as as_identifier

__all__ = [
    "as_identifier",
    "as_literal",
    "as_table_literal",
    "drop_slot_sql",
    "for_libpq",
    "for_shell",
    "reset_setting",
    "set_for_server",
    "set_list_for_server",
]

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")


def as_table_literal(schema: str, name: str) -> str:
    """Write a table as a constant of the type regclass, whose text has quotes only where a name needs them."""
    return as_literal(".".join(_plainly(each) for each in (schema, name)))


def _plainly(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else '"{}"'.format(name.replace('"', '""'))


def for_shell(*words: str) -> str:
    """Return a command line, with quotes where a word needs them."""
    return " ".join(_shell_word(word) for word in words)


def _shell_word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    return "$'{}'".format("".join(_shell_sign(sign) for sign in word))


def _shell_sign(sign: str) -> str:
    if sign in "\\'":
        return f"\\{sign}"
    return sign if sign.isprintable() else f"\\U{ord(sign):08x}"


def for_libpq(database: str) -> str:
    """Return the name of a database for an option of PostgreSQL's programs, which take one with `=` for a conninfo."""
    is_plain = "=" not in database and not database.startswith(("postgres://", "postgresql://"))
    return database if is_plain else make_conninfo(dbname=database)


def set_for_server(setting: str, value: str, *, restarts: bool = False) -> list[str]:
    """Return the commands that set something for the whole server. It needs a restart if it `restarts`."""
    return [f"ALTER SYSTEM SET {setting} = {as_literal(value)}", *([] if restarts else ["SELECT pg_reload_conf()"])]


def set_list_for_server(setting: str, values: list[str]) -> list[str]:
    """Return the commands that set a list of names; ALTER SYSTEM takes each as a constant of its own."""
    listed = ", ".join(as_literal(value) for value in values) or "''"
    return [f"ALTER SYSTEM SET {setting} = {listed}", "SELECT pg_reload_conf()"]


def reset_setting(setting: str, source: str, role: str, database: str) -> list[str]:
    """Return the commands that reset a setting where it comes from, as `pg_settings.source` says; none for a client."""
    match source:
        case "user":
            return [f"ALTER ROLE {as_identifier(role)} RESET {setting}"]
        case "database":
            return [f"ALTER DATABASE {as_identifier(database)} RESET {setting}"]
        case "database user":
            return [f"ALTER ROLE {as_identifier(role)} IN DATABASE {as_identifier(database)} RESET {setting}"]
        case "global":
            return [f"ALTER ROLE ALL RESET {setting}"]
        case "configuration file":
            return [f"ALTER SYSTEM RESET {setting}", "SELECT pg_reload_conf()"]
    return []


def drop_slot_sql(slot: str) -> str:
    """Return the statement that drops a slot."""
    return f"SELECT pg_drop_replication_slot({as_literal(slot)})"
