"""Names and texts as SQL writes them, for a statement that a person is to run.

A name is another role's text. It must not end its quotes, and a terminal must not act on it.
"""

from __future__ import annotations

__all__ = ["as_literal", "identifier"]


def identifier(*names: str) -> str:
    """Quote names, joined by a dot."""
    return ".".join(_in_quotes(name, '"') for name in names)


def as_literal(text: str) -> str:
    """Quote a text as a constant of SQL."""
    return _in_quotes(text, "'")


def _in_quotes(text: str, quote: str) -> str:
    doubled = text.replace(quote, quote * 2)
    if text.isprintable() and "\\" not in text:
        return f"{quote}{doubled}{quote}"
    escaped = "".join(_escape(sign) for sign in doubled)
    return f"U&{quote}{escaped}{quote}"


def _escape(sign: str) -> str:
    if sign == "\\":
        return "\\\\"
    return sign if sign.isprintable() else f"\\+{ord(sign):06X}"
