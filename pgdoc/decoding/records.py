"""The records that every output plugin's messages are decoded to.

Named tuples: one is made for each change, and a frozen dataclass takes three times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

COLLECTION_COLUMNS = frozenset({"id", "data", "version", "replaced_version", "created_at", "updated_at"})

ROW_KINDS = frozenset("IUDTM")
"""The kinds of a `RowChange`. Every other kind is that of a `CollectionChange`."""

MESSAGE_KIND: Final = "M"
"""The kind of a row that is an event of the application's own, see `message_rows`. Its table is its topic's name."""


class Begin(NamedTuple):
    """The start of a transaction. Its changes follow.

    Attributes:
        timestamp: when it committed; the time at its origin if it was replicated from another server.
        is_sent_time: whether `timestamp` is when the server sent the transaction, since its own time is not known.
    """

    commit_lsn: int
    xid: int
    timestamp: str
    is_sent_time: bool = False


class Images(NamedTuple):
    """A row before and after its change: values by column name, numbers as numbers, all else (jsonb too) as text.

    TOAST values that an UPDATE left unchanged are taken from the old row.

    Attributes:
        after: the row as the change left it (insert, update).
        before: the row before it (update, delete); only its key if the table is not REPLICA IDENTITY FULL.
    """

    after: dict[str, Any]
    before: dict[str, Any]


REST: Final = ""
"""No column has this name. In an image that has only the id and the data, it is what the other columns are read from: a
function and its argument, which does not keep the message alive. The data of such an image may be UTF-8."""


class OddColumns(dict[str, Any]):
    """What `rest_of` returns for a row of another shape than a collection's: columns may be missing."""


LOST: Final = "\0lost"
"""In the image of a watched table's row that can't be read: the column whose value was not sent."""


CELLS: Final = "\0cells"
"""In the image of a watched table's row that was read column by column: the JSON of each but the document's."""


def rest_of(image: dict[str, Any]) -> dict[str, Any]:
    """Read the columns that an image lacks; it must have `REST`. Never change the dict: many images share it."""
    read, text = image[REST]
    found: dict[str, Any] = read(text)
    return found


class RowChange(NamedTuple):
    """A change of one row, or the truncation of one table.

    The row stays in the undecoded message until it is asked for. Decoding costs more than all else that is done to a
    change, mostly for garbage collection of rows that only wait in a buffer.

    Attributes:
        kind: `I`, `U`, `D`, `T`, or `MESSAGE_KIND`.
        table: its name in the schema that is read. Before the change is assembled, pgoutput's may be outdated, or empty
            if the table was in another schema.
        complete: whether the message has all the images that its kind should have.
        read: decodes the message of the plugin that sent it; its images may lack columns that `rest_of` reads.
        oid: of the table; 0 from wal2json, which does not send it.
    """

    lsn: int
    kind: str
    table: str
    message: bytes
    complete: bool
    read: Callable[[bytes], Images]
    oid: int = 0

    @property
    def renamed_to(self) -> None:
        """Always `None`; a `CollectionChange` can have it."""
        return None

    def images(self) -> Images:
        """Decode the row.

        Raises:
            ProtocolError: the message is malformed.
        """
        found = self.read(self.message)
        for image in found:
            if REST in image:
                image.update(rest_of(image))
                del image[REST]
                if isinstance(image["data"], bytes):
                    image["data"] = image["data"].decode(errors="replace")
        return found


class CollectionChange(NamedTuple):
    """A change of a whole collection, with every attribute of a `RowChange` that code for both kinds reads.

    Attributes:
        kind: `create`, `rename`, `drop`, or `schema` if a table has other columns. Also `invalidate`, which no record
            reports: a stream lost its last collection.
        table: the collection's name, before a rename.
        complete: `False` if the plugin may have left out rows of the collection before this change.
        detail: the collections after the change, as a message of an earlier catalog lists them; or the shapes before
            and after a change of the kind `schema`; else `None`.
    """

    lsn: int
    kind: str
    table: str
    message: bytes
    complete: bool = True
    renamed_to: str | None = None
    detail: frozenset[str] | tuple[TableShape, TableShape] | None = None  # one field: both kinds of change have seven

    @property
    def remaining(self) -> frozenset[str] | None:
        """The collections after the change, if they are known."""
        return self.detail if isinstance(self.detail, frozenset) else None

    @property
    def shapes(self) -> tuple[TableShape, TableShape] | None:
        """The shapes of a table before and after the change."""
        return self.detail if isinstance(self.detail, tuple) else None

    def images(self) -> Images:
        """Return empty images."""
        return Images({}, {})

    def read(self, _message: bytes) -> Images:
        """Return empty images."""
        return Images({}, {})


class TableColumn(NamedTuple):
    """A column of a watched table: see `pgdoc.type_form` of the catalog for its form."""

    name: str
    type: str
    form: str


class TableShape(NamedTuple):
    """What the rows of a watched table have.

    Attributes:
        key: the columns of the primary key, in the order of its index.
        document: the column that events have as their document; `None` for the whole row.
        columns: in order, without generated ones.
    """

    key: tuple[str, ...]
    document: str | None
    columns: tuple[TableColumn, ...]

    @property
    def key_columns(self) -> list[tuple[str, str]]:
        """The names and types of the key's columns."""
        types = {column.name: column.type for column in self.columns}
        return [(name, types.get(name, "")) for name in self.key]


class Span(NamedTuple):
    """A table had this name and was a collection, or was watched, from the LSN `since` to before `until`.

    Attributes:
        until: `None` if it still is.
        shape: `None` for a collection.
        partitions: the oids and names of a collection's partitions, of which a plugin sends the rows.
    """

    oid: int
    schema: str
    name: str
    since: int
    until: int | None
    shape: TableShape | None = None
    partitions: tuple[tuple[int, str], ...] = ()

    @property
    def label(self) -> str:
        """The name in events: that of a collection alone, that of a table with its schema."""
        return self.name if self.shape is None else f"{self.schema}.{self.name}"

    def name_in(self, schema: str) -> str:
        """Return how wal2json's decoder names its rows, if `schema` is that of the collections."""
        return self.name if self.schema == schema and "." not in self.name else f"{self.schema}.{self.name}"


class RegistryRow(NamedTuple):
    """A row of the catalog's table `registry`, as a change left it.

    Attributes:
        is_new: whether the change inserted it.
        has_closed: whether the change set `until`.
        opened_by: `create`, `rename` or `move` (from another schema).
        from_name: the name before a rename; else `None`.
        closed_by: `drop`, `rename`, `move` or `unregister`; `None` if the span is open.
        exact: whether the DDL was recorded when it ran.
    """

    lsn: int
    is_new: bool
    has_closed: bool
    span: Span
    opened_by: str
    from_name: str | None
    closed_by: str | None
    exact: bool
    message: bytes


class Message(NamedTuple):
    """A transactional message of `pg_logical_emit_message`; `content` is `None` if it is not text."""

    lsn: int
    content: str | None


class Commit(NamedTuple):
    """The end of a transaction. Every transaction that commits below `end_lsn` has been sent."""

    end_lsn: int


class Idle(NamedTuple):
    """A keepalive between transactions. Every transaction that commits below `wal_end` has been sent."""

    wal_end: int


Record = Begin | RowChange | RegistryRow | Message | Commit | Idle
