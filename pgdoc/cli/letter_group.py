"""What the commands of `pgdoc dead-letters` share: options, and the letters that a command concerns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from pgdoc.cli.stores import open_store
from pgdoc.model.names import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import pgdoc
    from pgdoc import DeadLetter

__all__ = ["LetterGroup"]

_PAGE = 100


@dataclass(frozen=True)
class LetterGroup:
    """The options of a command; those after the subcommand come first.

    Attributes:
        schema: only letters of consumers of this one; `None` for all, also those of consumers that were dropped.
    """

    dsn: str
    schema: str | None
    json: bool

    def with_options(self, dsn: str, schema: str | None, *, json: bool) -> LetterGroup:
        """Return these options under those of a subcommand."""
        wanted = self.schema if schema is None else schema
        if wanted is not None:
            check_name(wanted, "schema")
        return replace(self, dsn=dsn or self.dsn, schema=wanted, json=json or self.json)

    def open_store(self) -> AbstractContextManager[pgdoc.Store]:
        """Open the store of the command."""
        return open_store("dead-letters", self.dsn)

    def letters_of(
        self, store: pgdoc.Store, filters: dict[str, str | None], after: int | None, limit: int
    ) -> Iterator[DeadLetter]:
        """Yield the letters that the command concerns, read in pages."""
        consumers, count = self._consumers(store), 0
        while count < limit:
            page = store.dead_letters(**filters, after=after, limit=min(_PAGE, limit))
            for letter in page:
                after = letter.id
                if count < limit and (consumers is None or letter.consumer in consumers):
                    count += 1
                    yield letter
            if len(page) < min(_PAGE, limit):
                return

    def known(self, store: pgdoc.Store, ids: Sequence[int]) -> list[DeadLetter]:
        """Return the letters with these ids; end the command if there is not each of them."""
        consumers, found, missing = self._consumers(store) if ids else None, [], []
        for each in ids:
            page = store.dead_letters(after=each - 1, limit=1) if 0 < each < 1 << 63 else []
            if page and page[0].id == each and (consumers is None or page[0].consumer in consumers):
                found += page
            else:
                missing.append(str(each))
        if missing:
            place = "" if self.schema is None else f" of a consumer in schema {self.schema}"
            typer.echo(
                f"pgdoc: there is no dead letter {', '.join(missing)}{place}: `pgdoc dead-letters` lists them", err=True
            )
            raise typer.Exit(1)
        return found

    def check_choice(self, ids: Sequence[int] | None, filters: dict[str, str | None], *, everything: bool) -> None:
        """Check that the letters to change are chosen in one way."""
        ways = (bool(ids), any(value is not None for value in filters.values()), everything)
        if sum(ways) != 1:
            options = "--consumer, --handler and the like"
            raise typer.BadParameter(f"give the ids of letters, or {options}, or --all", param_hint="'ID'")

    def change(
        self,
        store: pgdoc.Store,
        call: Callable[..., int],
        ids: Sequence[int] | None,
        filters: dict[str, str | None],
    ) -> int:
        """Call what changes the letters that were chosen; return how many it changed."""
        if ids:
            return call(*ids)
        consumers = self._consumers(store)
        if consumers is None:
            has_filter = any(value is not None for value in filters.values())
            return call(**filters, everything=not has_filter)
        wanted = consumers if filters["consumer"] is None else consumers & {filters["consumer"]}
        others: dict[str, Any] = {name: value for name, value in filters.items() if name != "consumer"}
        return sum(call(consumer=name, **others) for name in sorted(wanted))

    def _consumers(self, store: pgdoc.Store) -> set[str] | None:
        """Return the names of the consumers of the schema; `None` if there is no schema to select by."""
        if self.schema is None:
            return None
        return {consumer.name for consumer in store.consumers() if consumer.schema == self.schema}
