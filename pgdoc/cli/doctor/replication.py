"""Checks of what streams need from the server and the role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.cli.doctor.commands import set_for_server, set_list_for_server
from pgdoc.cli.doctor.finding import good, unseen, warn, wrong
from pgdoc.cli.stores import open_store
from pgdoc.database.standby_names import parse_standby_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_plugins", "check_replication", "check_standby_names", "check_stream"]


def check_replication(on: Examination) -> Iterator[Finding]:
    """Check `wal_level` and the role's right."""
    # From PostgreSQL 19 on, the first logical slot raises the level that is in effect.
    level, effective = on.text_of("wal_level"), on.text_of("effective_wal_level")
    suffices = level == "logical" or effective == "logical" or (effective != "" and level == "replica")
    if not suffices:
        yield wrong(
            "wal-level",
            f"wal_level is {level}: set it to logical, and restart the server",
            "wal_level",
            level,
            fix=set_for_server("wal_level", "logical", restarts=True),
        )
    else:
        yield good("wal-level", f"wal_level is {level}", "wal_level", effective or level)
    if on.may_replicate:
        return
    fix = [f"ALTER ROLE {on.quoted_role} REPLICATION"]
    text = f'role "{on.role}" may not replicate'
    if on.reads_stats:
        advice = "which streams need: run `pgdoc doctor` as the role of the program, too"
        yield unseen("role-replication", f"{text}, {advice}", on.role, fix=fix)
    else:
        yield wrong("role-replication", f"{text}, which streams need: let a superuser allow it", on.role, fix=fix)


def check_plugins(on: Examination) -> Iterator[Finding]:
    """Check the list of plugins that the server allows, which it has since the releases of 2026."""
    found = on.settings.get("output_plugin_libraries")
    if found is None:
        return
    allowed = [name.strip().strip('"') for name in found.value.split(",") if name.strip()]
    if "pgoutput" not in allowed:
        yield wrong(
            "output-plugins",
            f"output_plugin_libraries ({found.shown}) leaves out pgoutput, so no slot of pgdoc can be made",
            "output_plugin_libraries",
            found.shown,
            fix=set_list_for_server("output_plugin_libraries", [*allowed, "pgoutput"]),
        )
    elif "wal2json" not in allowed:
        text = f"output_plugin_libraries ({found.shown}) leaves out wal2json, so streams read through pgoutput"
        yield good("output-plugins", text, "output_plugin_libraries", found.shown)


def check_standby_names(on: Examination) -> Iterator[Finding]:
    """Check whether the server could take streams for synchronous standbys."""
    names = on.text_of("synchronous_standby_names")
    listed = parse_standby_names(names)
    if not listed:
        return
    (found,) = on.rows("walsender_names")
    setting = f"synchronous_standby_names ({names})"
    ours = {"*", *(name.lower() for name in found.open)}
    if listed & ours or any("pgdoc" in name for name in listed):
        standbys = [row.name for row in on.rows("standbys") if row.name]
        fix = set_for_server("synchronous_standby_names", _any_of(standbys)) if standbys else []
        yield warn(
            "synchronous-names",
            f"{setting} can match pgdoc's walsenders: they report nothing that could count, but confirm late and "
            "reconnect to release WAL; list the standbys by their names",
            "synchronous_standby_names",
            names,
            fix=fix,
        )
    else:
        text = f"{setting} matches none of pgdoc's walsenders"
        yield good("synchronous-names", text, "synchronous_standby_names", names)


def _any_of(standbys: list[str]) -> str:
    listed = ", ".join('"{}"'.format(name.replace('"', '""')) for name in dict.fromkeys(standbys))
    return f"ANY 1 ({listed})"


def check_stream(on: Examination) -> Iterator[Finding]:
    """Open a stream and close it again, if the role may."""
    if not on.may_replicate:
        yield unseen("stream", "no test stream was opened, because the role may not replicate", on.schema)
        return
    with open_store("doctor", on.dsn, on.schema) as store:
        found = store.status()
    if found.problem is not None:
        yield wrong("stream", found.problem, on.schema)
    else:
        yield good(
            "stream", f"a test stream through {found.plugin} works ({found.plugin_reason})", on.schema, found.plugin
        )
