"""The row of a watched table as the document of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import NotACollection
from pgdoc.model.documents import Document
from pgdoc.model.json_codec import decode_comparable

if TYPE_CHECKING:
    from pgdoc.model.json_codec import JsonDecoder

__all__ = ["TableRow"]


class TableRow(Document):
    """A document that is the row of a table: it has an id and data, and what only collections have raises an error."""

    @classmethod
    def of(
        cls,
        document_id: str,
        data_text: bytes | str,
        table: str,
        decode_text: JsonDecoder | None,
        columns_text: bytes | str | None = None,
    ) -> TableRow:
        """Make a row that decodes its data on first access. `columns_text` is the JSON of the other columns, if any.

        The default reads a number as a Decimal where a float would round it: a table's `numeric` has all its digits.
        """
        row = object.__new__(cls)
        decode = decode_text or decode_comparable
        state: dict[str, Any] = {"id": document_id, "_data": data_text, "_collection": table, "_decode": decode}
        if columns_text is not None:
            state["_columns"] = columns_text
        _set_state(row, state)  # half the time of changing the dict that Python makes
        return row

    @property
    def columns_text(self) -> bytes | str | None:
        """The JSON of the other columns, if the data is only one of them."""
        return self.__dict__.get("_columns")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        assert isinstance(other, TableRow)  # noqa: S101 (its class)
        return (self.id, self.data) == (other.id, other.data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r})"


_set_state = Document.__dict__["__dict__"].__set__


class _OfCollections:
    """An attribute that only the documents of collections have."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, row: TableRow | None, owner: type[TableRow]) -> Any:
        if row is None:
            raise AttributeError(self._name)
        table = row.__dict__["_collection"]
        raise NotACollection(f'a row of table "{table}" has no {self._name}: only documents of collections have one')


_ATTRIBUTES: Final = ("version", "created_at", "updated_at")

for _name in _ATTRIBUTES:
    setattr(TableRow, _name, _OfCollections(_name))
