"""The built API reference has an entry for each public name, and for nothing else."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

import pgdoc
from pgdoc import sqlalchemy, telemetry, testing, web
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ["api", "api-async", "errors"]

# Members without an underscore that only the library itself, or a framework, uses. A new member of a public class is
# either in the reference or here.
INTERNAL = {"Document": {"from_text"}, "MetricsEndpoint": {"after_fork"}, "EventStream": {"media_type"}}


def entries(site: Path) -> list[str]:
    """List the names that have a heading in the reference."""
    pages = [(site / "reference" / page / "index.html").read_text() for page in PAGES]
    return [name for page in pages for name in re.findall(r'<h\d id="(pgdoc\.[\w.]+)"', page)]


def members(cls: type) -> set[str]:
    """Name the public methods and properties of a class, without what it has from Python's own classes."""
    fields = {each.name for each in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    defined = {name for each in cls.__mro__ if each.__module__.startswith("pgdoc") for name in vars(each)}
    return {name for name in defined if not name.startswith("_")} - fields - INTERNAL.get(cls.__name__, set())


def public() -> set[str]:
    """Name what the reference has to have."""
    objects: dict[str, Any] = {f"pgdoc.{name}": getattr(pgdoc, name) for name in pgdoc.__all__}
    objects["pgdoc.server.LocalServer"] = LocalServer
    objects |= {f"pgdoc.telemetry.{name}": getattr(telemetry, name) for name in telemetry.__all__}
    objects |= {f"pgdoc.sqlalchemy.{name}": getattr(sqlalchemy, name) for name in sqlalchemy.__all__}
    objects |= {f"pgdoc.testing.{name}": getattr(testing, name) for name in testing.__all__}
    objects |= {f"pgdoc.web.{name}": getattr(web, name) for name in web.__all__}
    names = set(objects)
    for name, each in objects.items():
        if inspect.isclass(each) and not issubclass(each, Exception):
            names |= {f"{name}.{member}" for member in members(each)}
    return names


def test_the_reference_has_each_public_name_once_and_nothing_else(site: Path) -> None:
    found = entries(site)
    assert len(found) == len(set(found))
    assert set(found) == public()


def test_async_classes_have_the_entries_of_their_twins(site: Path) -> None:
    found = set(entries(site))
    twins = {name.removeprefix("Async") for name in pgdoc.__all__ if name.startswith("Async")}
    assert len(twins) == 13
    for twin in twins:
        names = {name.removeprefix(f"pgdoc.{twin}.") for name in found if name.startswith(f"pgdoc.{twin}.")}
        assert names
        assert {f"pgdoc.Async{twin}.{name}" for name in names} <= found


def test_internal_members_exist() -> None:
    for name, internal in INTERNAL.items():
        module = next(each for each in (pgdoc, telemetry, web) if name in each.__all__)
        assert internal <= set(dir(getattr(module, name)))
