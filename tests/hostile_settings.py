"""Settings of PostgreSQL's sessions with values that could change what pgdoc's statements mean.

`docs/reference/session-settings.md` says what pgdoc does about each; a test compares the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

HARMLESS: Final[dict[str, dict[str, str]]] = {
    "encoding": {"client_encoding": "LATIN1"},
    "formats": {
        "DateStyle": "German, DMY",
        "timezone_abbreviations": "Australia",
        "IntervalStyle": "sql_standard",
        "TimeZone": "America/St_Johns",
        "extra_float_digits": "-15",
        "bytea_output": "escape",
        "xmlbinary": "hex",
        "xmloption": "document",
        "lc_messages": "C",
        "lc_monetary": "C",
        "lc_numeric": "C",
        "lc_time": "C",
    },
    "literals": {
        "standard_conforming_strings": "off",
        "backslash_quote": "off",
        "escape_string_warning": "on",
        "array_nulls": "off",
        "transform_null_equals": "on",
        "quote_all_identifiers": "on",
    },
    "search path": {"search_path": "hostile, pg_catalog"},
    "row security": {"row_security": "off"},
    "isolation": {"default_transaction_isolation": "serializable", "default_transaction_deferrable": "on"},
    "repeatable read": {"default_transaction_isolation": "repeatable read", "synchronous_commit": "off"},
    "GIN": {"gin_fuzzy_search_limit": "1", "gin_pending_list_limit": "64", "enable_seqscan": "off"},
    "JIT": {
        "jit": "on",
        "jit_above_cost": "0",
        "jit_inline_above_cost": "0",
        "jit_optimize_above_cost": "0",
        "client_connection_check_interval": "0",
    },
    "generic plans": {"plan_cache_mode": "force_generic_plan"},
    "custom plans": {"plan_cache_mode": "force_custom_plan"},
    "parallel plans": {
        "force_parallel_mode": "on",
        "debug_parallel_query": "on",
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "min_parallel_index_scan_size": "0",
        "max_parallel_workers_per_gather": "4",
    },
    "other plans": {
        "enable_indexscan": "off",
        "enable_bitmapscan": "off",
        "enable_sort": "off",
        "enable_hashjoin": "off",
        "enable_nestloop": "off",
        "enable_hashagg": "off",
        "geqo_threshold": "2",
        "from_collapse_limit": "1",
        "join_collapse_limit": "1",
        "work_mem": "64",
        "constraint_exclusion": "on",
        "cursor_tuple_fraction": "0",
    },
    "what is created, and reported": {
        "client_min_messages": "debug5",
        "default_toast_compression": "pglz",
        "default_table_access_method": "heap",
        "restrict_nonsystem_relation_kind": "view, foreign-table",
    },
    "functions": {
        "check_function_bodies": "off",
        "plpgsql.variable_conflict": "use_column",
        "plpgsql.extra_errors": "all",
        "plpgsql.check_asserts": "off",
    },
    "triggers": {"session_replication_role": "replica"},
    "errors": {"exit_on_error": "on"},
    "time limits": {
        "idle_session_timeout": "3000",
        "idle_in_transaction_session_timeout": "10000",
        "lock_timeout": "3000",
        "statement_timeout": "10000",
        "transaction_timeout": "10000",
    },
    "streams": {"wal_sender_timeout": "2000", "logical_decoding_work_mem": "64"},
}
"""Groups of settings. Under each, and under all together, every call gives the same answer."""

REFUSING: Final = {"default_transaction_read_only": "on"}
"""What a user sets to be refused."""

IN_STATEMENTS: Final = ("formats", "literals", "search path", "generic plans", "custom plans", "other plans")
"""Groups that the fuzz sets in a session of its own; the others concern connections, tables or transactions."""


def together() -> dict[str, str]:
    """Return all settings at once. Where groups differ, the first counts.

    Parallel plans are left out: with the others, each row of an index would start processes.
    """
    found: dict[str, str] = {}
    for name, group in HARMLESS.items():
        if name != "parallel plans":
            found = {**group, **found}
    return found


def known(connection: psycopg.Connection, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that the server has, or that belong to an extension."""
    rows = connection.execute("SELECT lower(name) FROM pg_settings").fetchall()
    names = {name for (name,) in rows}
    return {name: value for name, value in settings.items() if name.lower() in names or "." in name}


def set_for(connection: psycopg.Connection, target: sql.Composable, settings: Mapping[str, str]) -> None:
    """Set them for `target`, such as the SQL of `ROLE x`."""
    connection.execute("LOAD 'plpgsql'")
    for name, value in known(connection, settings).items():
        # A list is not one quoted value; of these, only search_path is one that ALTER would quote as a whole.
        values = value.split(", ") if name == "search_path" else [value]
        statement = sql.SQL("ALTER {} SET {} = {}")
        names = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
        connection.execute(statement.format(target, names, sql.SQL(", ").join(map(sql.Literal, values))))


def as_options(settings: Mapping[str, str]) -> str:
    """Return them as libpq's `options`."""
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
