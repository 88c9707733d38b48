"""Checks of pgdoc's catalog: its revision, event triggers and publication."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgdoc.cli.doctor.commands import as_identifier, as_literal
from pgdoc.cli.doctor.finding import good, warn, wrong
from pgdoc.database.catalog import FIND_FOREIGN_OWNER, FIND_REVISION, REVISION, check_owner, check_revision
from pgdoc.errors import CatalogMissing, CatalogNotTrusted, CatalogVersionMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_catalog", "check_coverage", "check_event_triggers"]

_INIT: Final = ["pgdoc init"]
_FINISH: Final = ["pgdoc upgrade finish"]
_CANCEL: Final = ["pgdoc upgrade prepare --cancel"]
_FIRES: Final = {"O", "A"}


def check_catalog(on: Examination) -> Iterator[Finding]:
    """Check that the catalog is there, may be trusted, and belongs to this version and this database."""
    try:
        check_owner(on.connection.execute(FIND_FOREIGN_OWNER).fetchone())
    except CatalogNotTrusted as exc:
        yield wrong("catalog-owner", str(exc), "pgdoc")
        return
    found = _revision(on)
    try:
        check_revision(found)
    except CatalogMissing as exc:
        yield wrong("catalog-missing", str(exc), "pgdoc", fix=_INIT)
        return
    except CatalogVersionMismatch as exc:
        fix = _INIT if exc.found_version < REVISION else ["pip install --upgrade pgdoc"]
        yield wrong("catalog-revision", str(exc), "pgdoc", found, fix=fix)
        return
    (frozen,) = on.rows("frozen")
    if on.rows("is_bound")[0] == (False,):
        text = "the registry belongs to another database: this one was upgraded, is a copy, or was restored"
        yield wrong("catalog-unbound", text, on.database, fix=_FINISH if frozen.is_prepared else _INIT)
        return
    if frozen.is_frozen:
        text = "the database is prepared for an upgrade of PostgreSQL, so its collections take no writes"
        yield wrong("catalog-frozen", text, on.database, fix=_CANCEL)
    yield good("catalog", f"revision {found}", "pgdoc", found)


def _revision(on: Examination) -> str | None:
    try:
        with on.connection.transaction():
            row = on.connection.execute(FIND_REVISION).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    return None if row is None else str(row[0])


def check_event_triggers(on: Examination) -> Iterator[Finding]:
    """Check that event triggers tell streams about DDL."""
    late = "so streams notice DDL in plain SQL late, and read through pgoutput"
    found = {row.name: row.enabled for row in on.rows("event_triggers")}
    missing = [name for name in ("pgdoc_drops", "pgdoc_alters") if name not in found]
    for name in missing:
        yield warn(
            "event-trigger-missing",
            f"the event trigger {name} is missing, {late}: `pgdoc init` adds it if a superuser owns the catalog; "
            "another catalog can't have it",
            name,
            fix=_INIT,
        )
    disabled = [name for name, enabled in found.items() if enabled not in _FIRES]
    for name in disabled:
        yield warn(
            "event-trigger-disabled",
            f"the event trigger {name} is disabled, {late}",
            name,
            found[name],
            fix=[f"ALTER EVENT TRIGGER {name} ENABLE"],
        )
    if not missing and not disabled:
        yield good("event-triggers", "event triggers follow DDL in plain SQL", value=len(found))


def check_coverage(on: Examination) -> Iterator[Finding]:
    """Check that pgoutput sees all that is watched, and nothing else."""
    ((fault,),) = on.rows_of("streams", "publication_fault", on.schema, "{.}")
    if fault is not None:
        said, _, advice = fault.partition(": ")
        yield wrong(
            "publication",
            f'the publication "pgdoc" {said}, so pgoutput leaves out changes: {advice}',
            "pgdoc",
            fix=_publication_fix(fault, on.schema),
        )
    else:
        yield good("publication", 'the publication "pgdoc" has all collections and watched tables', "pgdoc")
    for owner in on.rows("publication_owner"):
        yield warn(
            "publication-owner",
            f'the role "{owner.name}" owns the publication "pgdoc", but "{owner.expected}" owns the catalog, and '
            "can't add collections to it",
            "pgdoc",
            owner.name,
            fix=[f"ALTER PUBLICATION pgdoc OWNER TO {as_identifier(owner.expected)}"],
        )
    yield from (_foreign(table) for table in on.rows("foreign_tables"))


def _publication_fix(fault: str, schema: str) -> list[str]:
    if fault.startswith("does not exist"):
        return ["CREATE PUBLICATION pgdoc", f"SELECT pgdoc.publish({as_literal(schema)})"]
    if fault.startswith("does not publish"):
        return ["ALTER PUBLICATION pgdoc SET (publish = 'insert, update, delete, truncate')"]
    return [f"SELECT pgdoc.publish({as_literal(schema)})"]


def _foreign(table: Any) -> Finding:
    name = as_identifier(table.schema, table.name)
    return warn(
        "publication-foreign-table",
        f'the publication "pgdoc" has the table {name}, which is no collection and not watched: the server sends its '
        "changes for nothing",
        f"{table.schema}.{table.name}",
        fix=[f"ALTER PUBLICATION pgdoc DROP TABLE ONLY {name}"],
    )
