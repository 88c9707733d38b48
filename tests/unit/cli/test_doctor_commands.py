"""The commands that doctor prints mean what they say, whatever the names in them are."""

from __future__ import annotations

import subprocess

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgdoc.cli.doctor.commands import for_libpq, for_shell


@pytest.mark.parametrize(
    "word", ["plain", "a b", "--x", "it's\n", "é\n", "ÿ\x1b[2J€𝄞", "\\xe9\n", "\\\\é\t", "`x`$(y)\x07", "\x85a"]
)
def test_a_shell_reads_the_word_that_was_meant(word: str) -> None:
    command = for_shell("printf", "%s", word)
    assert command.isprintable()
    found = subprocess.run(["/bin/bash", "-c", command], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert found.stdout.decode() == word


@pytest.mark.parametrize(
    "name", ["host=evil.example dbname=x", "postgres://evil.example/x", "postgresql:///?host=e", "a='b\\c'"]
)
def test_a_program_of_postgresql_takes_no_name_of_a_database_for_a_conninfo(name: str) -> None:
    assert conninfo_to_dict(for_libpq(name)) == {"dbname": name}


@pytest.mark.parametrize("name", ["shop", "it's", "a b", "postgres"])
def test_a_plain_name_of_a_database_stays(name: str) -> None:
    assert for_libpq(name) == name
    with pytest.raises(psycopg.ProgrammingError):
        conninfo_to_dict(for_libpq(name))
