"""What is said about a conninfo that is not valid, and what is not."""

from __future__ import annotations

import pytest

from pgdoc.database.conninfo import parse_conninfo
from pgdoc.errors import DatabaseError


@pytest.mark.parametrize(
    ("conninfo", "fault"),
    [
        ("postgresql://app:%zzSECRET@h/db", "a % is not followed by two hexadecimal digits"),
        ("postgresql://app:%00SECRET@h/db", "a % is not followed by two hexadecimal digits"),
        ("postgresql://app:%ffSECRET@h/db", "it is not UTF-8"),
        ("postgresql://app:a@SECRET@h/db", "the host contains an @"),
        ("postgresql://app:SECRET/a@h/db", "the port is not a number"),
        ("postgresql://app:a@h/db?SECRET=1", "libpq does not know one of the options"),
        ("postgresql://app:a@h/db?sslpassword=1&SECRET=1", "libpq does not know one of the options"),
        ("postgresql://app:a@h/db?nosuch=SECRET", "libpq does not know the option nosuch."),
        ("postgresql://h:1/?nosuch=SECRET", "libpq does not know the option nosuch."),
        ("nosuch=SECRET", "libpq does not know the option nosuch."),
        ("host=h port=1 nosuch=SECRET", "libpq does not know the option nosuch."),
        ("host=h port=1 dbname=d nosuch=SECRET password=x", "libpq does not know the option nosuch."),
        ("postgresql://app:a@h/db?SECRET", "a word has no ="),
        ("postgresql://app:a@[SECRET/db", "libpq can't read it"),
        ("postgresq://app:SECRET@h/db", "a URL has to begin with postgresql://"),
        ("postgresql+psycopg://app:SECRET@h/db", "a URL has to begin with postgresql://"),
        (" postgresql://app:SECRET@h/db", "a URL has to begin with postgresql://"),
        ("postgresql:/app:SECRET@h/db", "a URL has to begin with postgresql://"),
        ("host=h password='SECRET", "a quoted value has no closing quote"),
        ("host=h password=a SECRET", "a word has no ="),
        ("host=h password=a SECRET=b", "libpq does not know one of the options"),
        ("host=h sslmode=a SECRET=b", "libpq does not know one of the options"),
        ("host=h connect_timeout=SECRET", "connect_timeout is not a number"),
        ("host=h password=SECRET\udcff", "it is not UTF-8"),
    ],
)
def test_the_fault_is_named_and_nothing_else(conninfo: str, fault: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        parse_conninfo(conninfo)
    message = str(raised.value)
    assert message.startswith(f"the conninfo is not valid: {fault}")
    assert "percent-encoded" in message
    assert "SECRET" not in message
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    "conninfo",
    [
        "",
        "host=a,b port=1,2",
        "host=@socket",
        "postgresql:///db?host=/tmp",
        "postgresql://[::1]:5432/a%40b",
        "user='a b'",
    ],
)
def test_a_conninfo_that_libpq_can_use_is_accepted(conninfo: str) -> None:
    assert isinstance(parse_conninfo(conninfo), dict)


@pytest.mark.parametrize(
    "conninfo",
    [
        "host=h password=a secret=b",
        "host='h' secret=b",
        "host=h application_name=a secret=b",
        "host=a port=1 port=2 secret=b",
        "postgresql://app:p?secret=1",
        "postgresql://app:p@h/db?x?secret=1",
        "postgresql://app:p@h/db?options=a&secret=1",
    ],
)
def test_an_option_that_may_be_a_piece_of_a_secret_is_not_named(conninfo: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        parse_conninfo(conninfo)
    assert "secret" not in str(raised.value).removesuffix("it may hold a secret").lower()
