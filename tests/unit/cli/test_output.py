"""What the commands print on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from pgdoc.cli.output import make_table, print_table

if TYPE_CHECKING:
    import pytest


def test_a_piped_table_has_each_row_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table(box=None, show_header=False)
    table.add_row("x" * 200, "y y " * 50)
    print_table(table)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[0] == "x" * 200
    assert len(line) < 500


def test_a_cell_has_no_markup_and_nothing_that_a_terminal_acts_on(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(make_table(("name", "size"), [("[bold]\x1b[2J", "7")], right=("size",)))
    assert capsys.readouterr().out.splitlines()[1].split() == ["[bold]\\x1b[2J", "7"]
