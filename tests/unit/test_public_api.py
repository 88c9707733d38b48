"""The public names of pgdoc, with their signatures, stay as they are in `public_api.txt`.

A name may be added, to the file too. A line that no longer holds breaks the programs of users.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pgdoc
import pgdoc.errors
import pgdoc.server
import pgdoc.testing
import pgdoc.web

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMISED = (Path(__file__).parent / "public_api.txt").read_text(encoding="utf-8").splitlines()
TEST_PLUGIN = os.environ.get("PGDOC_TEST_PLUGIN")  # the tests make it the default of every store
CONSTRUCTED = {
    *("Store", "AsyncStore", "LocalServer", "ResumeToken", "Worker", "AsyncWorker", "Relay", "AsyncRelay"),
    *("Broadcast", "PgdocMiddleware", "RemoteStream", "AsyncRemoteStream", "WebhookRelay", "AsyncWebhookRelay"),
    *("collected", "running"),
}  # calls return instances of the other classes
SPECIAL = {"__getitem__", "__enter__", "__exit__", "__aenter__", "__aexit__", "__iter__", "__aiter__", "__await__"}


def test_every_promised_name_has_its_promised_signature() -> None:
    found = set(public_api())
    assert len(PROMISED) > 300
    assert [line for line in PROMISED if line not in found] == []


def test_the_errors_can_be_imported_from_both_modules() -> None:
    assert [name for name in pgdoc.errors.__all__ if getattr(pgdoc, name) is not getattr(pgdoc.errors, name)] == []


def public_api() -> Iterator[str]:
    for name in sorted(pgdoc.__all__):
        yield from described(f"pgdoc.{name}", getattr(pgdoc, name))
    yield from described("pgdoc.server.LocalServer", pgdoc.server.LocalServer)
    for name in pgdoc.testing.__all__:
        yield from described(f"pgdoc.testing.{name}", getattr(pgdoc.testing, name))
    for name in pgdoc.web.__all__:
        yield from described(f"pgdoc.web.{name}", getattr(pgdoc.web, name))


def described(name: str, value: Any) -> Iterator[str]:
    """Describe a function in one line, a class in one for each of its members."""
    if not inspect.isclass(value):
        yield f"{name}{parameters(value)}"
        return
    bases = [
        base.__name__ for base in value.__mro__[1:] if base in {Exception, int, str} or hasattr(pgdoc, base.__name__)
    ]
    yield f"class {name}({', '.join(bases)})"
    if issubclass(value, enum.Enum):
        yield from (f"{name}.{member.name} = {member.value!r}" for member in value)
        return
    fields = {field.name: field.type for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else {}
    yield from (f"{name}.{field}: {kind}" for field, kind in fields.items())
    if value.__name__ in CONSTRUCTED or issubclass(value, Exception):
        yield f"{name}{parameters(value.__init__)}"
    for member in sorted(public_members(value) - fields.keys()):
        yield described_member(f"{name}.{member}", inspect.getattr_static(value, member))


def public_members(value: type) -> set[str]:
    own = {name for base in value.__mro__ if base.__module__.startswith("pgdoc") for name in vars(base)}
    return {name for name in own if not name.startswith("_") or name in SPECIAL}


def described_member(name: str, member: Any) -> str:
    if isinstance(member, property):
        return f"{name} -> {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]
    if isinstance(member, classmethod | staticmethod):
        return f"{name}{parameters(member.__func__)}"
    if inspect.isfunction(member):
        return f"{'async ' if inspect.iscoroutinefunction(member) else ''}{name}{parameters(member)}"
    return f"{name} = {member!r}" if isinstance(member, bool) else name


def parameters(function: Any) -> str:
    """Return the names, kinds and defaults of the parameters; types are the type checker's."""
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return text.replace(f"plugin={TEST_PLUGIN!r}", "plugin='auto'")
