"""What the commands of `pgdoc groups` share: the options that may stand before or after the subcommand, and tables."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

import pgdoc
from pgdoc.cli.output import make_table
from pgdoc.cli.render import printable
from pgdoc.cli.stores import open_store
from pgdoc.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.table import Table

    from pgdoc import GroupMember, GroupStatus

__all__ = ["LogCommand", "groups_table", "partitions_table", "report_damage"]


@dataclass(frozen=True)
class LogCommand:
    """The options of a command; those after the subcommand come first.

    Attributes:
        url: of the log; empty if none was given yet.
        dsn: of the database with the effects; empty for none.
    """

    url: str
    dsn: str
    json: bool

    def with_options(self, url: str, dsn: str, *, json: bool) -> LogCommand:
        """Return these options under those of a subcommand."""
        return LogCommand(url or self.url, dsn or self.dsn, json or self.json)

    @contextmanager
    def opened(self) -> Iterator[pgdoc.Store | None]:
        """Open the store, if a database was named; report a URL that is none as an invalid argument."""
        if not self.url:
            raise typer.BadParameter("name the log, such as nats://host/ORDERS", param_hint="'--from-relay'")
        try:
            if not self.dsn:
                yield None
                return
            with open_store("groups", self.dsn) as store:
                yield store
        except InvalidInput as exc:
            raise typer.BadParameter(str(exc)) from exc

    def known(self, name: str) -> GroupStatus:
        """Return a group; end the command if there is none."""
        with self.opened() as store:
            for group in pgdoc.log_groups(self.url, store=store):
                if group.name == name:
                    return group
        raise self.unknown(name)

    def unknown(self, name: str) -> typer.Exit:
        """Report a group that does not exist; return what to raise."""
        typer.echo(printable(f"pgdoc: the log has no group {name}: `pgdoc groups` lists them"), err=True)
        return typer.Exit(1)


def report_damage(groups: Iterable[GroupStatus]) -> None:
    """Name the records that can't be read."""
    for group in groups:
        for key in group.damaged:
            text = f"pgdoc: the record {key} of group {group.name} is damaged: drop the group, or use another"
            typer.echo(printable(text), err=True)


def groups_table(groups: Iterable[GroupStatus]) -> Table:
    """Return a table with one row per group."""
    headings = ("group", "members", "partitions", "behind", "rows")
    return make_table(headings, map(_cells, groups), right=headings[1:])


def _cells(group: GroupStatus) -> tuple[str, ...]:
    owned = sum(each.owner is not None for each in group.partitions)
    partitions = f"{owned} of {len(group.partitions)}"
    return group.name, str(len(group.members)), partitions, _count(group.behind), _count(group.rows)


def partitions_table(group: GroupStatus) -> Table:
    """Return a table with one row per partition, and one per member that has none."""
    members = {each.id: each for each in group.members}
    rows = []
    for each in group.partitions:
        owner = "no" if each.owner is None else _named(each.owner, members.get(each.owner))
        rows.append((str(each.number), owner, _count(each.sequence), _count(each.behind)))
    owners = {each.owner for each in group.partitions}
    rows += [("standby", _named(member.id, member), "", "") for member in group.members if member.id not in owners]
    return make_table(("partition", "owner", "sequence", "behind"), rows, right=("partition", "sequence", "behind"))


def _named(name: str, member: GroupMember | None) -> str:
    if member is None or member.host is None:
        return name
    return f"{member.host} pid {member.pid}"


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
