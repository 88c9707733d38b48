"""`Document`, which decodes its data and times on first access."""

from __future__ import annotations

from collections.abc import Callable, Mapping  # noqa: TC003 (a named tuple's fields are looked up)
from dataclasses import dataclass, fields
from datetime import datetime  # noqa: TC003 (`typing.get_type_hints` looks it up)
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, overload

from pgdoc.errors import InvalidModel, UnreadableDocument
from pgdoc.model.json_codec import decode, encode
from pgdoc.model.read_errors import noted
from pgdoc.model.stored_times import read_time
from pgdoc.model.type_variables import M_co
from pgdoc.model.typed.reader import ModelReader
from pgdoc.model.values import is_json_type

if TYPE_CHECKING:
    from pgdoc.model.json_codec import JsonDecoder

__all__ = [
    "Document",
    "Origin",
    "data_text",
    "decode_stored",
    "document_of_image",
    "projection_of",
    "to_be_decoded_by",
]


_ABSENT: Final = object()


def decode_stored(text: bytes | str | None, decode_text: JsonDecoder | None = None) -> Any:
    """Decode JSON text that the server returned, which is `None` if it can't print the value."""
    if text is None:
        raise UnreadableDocument(
            "PostgreSQL can't print the stored data, because its JSON text has more than 1 GB: change it with SQL"
        )
    return (decode_text or decode)(text)


def _read_data(text: bytes | str | None, state: dict[str, Any]) -> Any:
    return decode_stored(text, _decoder_of(state))


class _Unread:
    """A field of a document that is decoded on first access and then stored in it.

    A descriptor, not `__getattr__`, which Python calls only after an AttributeError.
    """

    def __init__(self, name: str, read: Callable[[Any, dict[str, Any]], Any]) -> None:
        self._name, self._kept, self._read = name, f"_{name}", read

    def __get__(self, document: Document[Any] | None, owner: type[Document[Any]]) -> Any:
        if document is None:
            raise AttributeError(self._name)  # a dataclass would take a value for the field's default
        state = document.__dict__
        kept = state.get(self._kept, _ABSENT)
        if kept is _ABSENT:
            if self._name in state:  # another thread has decoded it since `kept` was read
                return state[self._name]
            if "_rest" not in state:
                raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}")
            kept = _columns_of(state)[self._name]
        try:
            value = state.setdefault(self._name, self._read(kept, state))
        except UnreadableDocument as exc:
            raise _named(document, exc) from exc
        state.pop(self._kept, None)
        return value


def _columns_of(state: dict[str, Any]) -> Mapping[str, Any]:
    origin: Origin = state["_origin"]
    return origin.columns(state["_rest"], origin.collection)


def _named(document: Document[Any], exc: UnreadableDocument) -> UnreadableDocument:
    origin: Origin | None = document.__dict__.get("_origin")
    collection = document.__dict__.get("_collection") if origin is None else origin.collection
    where = "" if collection is None else f' of collection "{collection}"'
    message, document_id = f"document {document.id!r}{where}: {exc}", document.id
    if isinstance(exc, InvalidModel):
        message = f"{message}. Correct the document, or change the model"
        return noted(
            InvalidModel(message, path=exc.path, model=exc.model, collection=collection, document_id=document_id)
        )
    return noted(UnreadableDocument(message, collection=collection, document_id=document_id))


@dataclass(frozen=True, repr=False)
class Document(Generic[M_co]):
    """A document as it was stored at one point in time.

    Attributes:
        id: the document's id.
        data: the JSON object, or in a typed collection the model. You may modify it; nothing else refers to it.
        version: 1 after the insert, and increased by one with every change.
        created_at: when the document was inserted; timezone-aware, in UTC.
        updated_at: when it was last changed; timezone-aware, in UTC.
    """

    id: str
    data: M_co
    version: int
    created_at: datetime
    updated_at: datetime

    if TYPE_CHECKING:  # what the dataclass has, but for a checker, `{}` is no dict of a particular type

        @overload
        def __init__(
            self: Document, id: str, data: dict[str, Any], version: int, created_at: datetime, updated_at: datetime
        ) -> None: ...

        @overload
        def __init__(self, id: str, data: M_co, version: int, created_at: datetime, updated_at: datetime) -> None: ...

        def __init__(
            self,
            id: str,  # noqa: A002
            data: Any,
            version: int,
            created_at: datetime,
            updated_at: datetime,
        ) -> None: ...

    @classmethod
    def from_text(  # noqa: PLR0913
        cls,
        id: str,  # noqa: A002 (the name of the field)
        data_text: bytes | str | None,
        version: int,
        created_at: datetime | str | int | None,
        updated_at: datetime | str | int | None,
        *,
        collection: str | None = None,
        decode_text: JsonDecoder | None = None,
        projection: object = None,
    ) -> Self:
        """Make a document that decodes its data and times on first access.

        Times may be PostgreSQL's text, or its binary form, an integer.

        `None` is for what the server can't return. Errors name the collection. `projection_of` returns the projection
        that the data is the result of.
        """
        document = object.__new__(cls)
        document.__dict__.update(
            id=id,
            version=version,
            _data=data_text,
            _created_at=created_at,
            _updated_at=updated_at,
            _collection=collection,
        )
        if decode_text is not None:
            document.__dict__["_decode"] = decode_text
        if projection is not None:
            document.__dict__["_projection"] = projection
        return document

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_plain", None)
        if "_origin" in state:  # it has a function of the plugin
            columns, origin = _columns_of(state), state.pop("_origin")
            del state["_rest"]
            state["_collection"] = origin.collection
            if origin.decode_text is not decode:
                state["_decode"] = origin.decode_text
            for name in ("version", "created_at", "updated_at"):
                if name not in state:
                    state[f"_{name}"] = columns[name]
        return state

    def __getitem__(self, key: str) -> Any:
        data: Any = self.data
        try:
            return data[key]
        except TypeError:  # the document was made with a model
            return plain_data(self)[key]

    def __contains__(self, key: object) -> bool:
        data: Any = self.data
        return key in (data if data.__class__ is dict else plain_data(self))

    # Without this, Python takes a class with `__getitem__` for a sequence, and fails with KeyError: 0.
    __iter__ = None

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a top-level field of the data, or the default if there is none.

        The value is JSON, also in a typed collection, and the field has the name that is stored.
        """
        data: Any = self.data
        return (data if data.__class__ is dict else plain_data(self)).get(key, default)

    def __repr__(self) -> str:
        model = getattr(_decoder_of(self.__dict__), "name", None) if self.__class__ is TypedDocument else None
        title = type(self).__name__ if model is None else f"Document[{model}]"
        return f"{title}({', '.join(f'{each.name}={_shown(self, each.name)}' for each in fields(self))})"


def _shown(document: Document[Any], name: str) -> str:
    """Return the `repr` of a field, which must not raise: logs and debuggers call it."""
    try:
        is_stored = document.__class__ is TypedDocument and name == "data" and "_data" in document.__dict__
        return repr(plain_data(document) if is_stored else getattr(document, name))
    except UnreadableDocument:
        return "<unreadable>"


class Origin(NamedTuple):
    """What the documents of a stream share if they are of one collection.

    Attributes:
        columns: reads the columns other than id and data from an image of a row, or from the rest of one.
        decode_text: decodes the data.
        kind: the class of the documents.
    """

    collection: str
    columns: Callable[[Any, str], Mapping[str, Any]]
    decode_text: JsonDecoder = decode
    kind: type[Document[Any]] = Document


_set_state = Document.__dict__["__dict__"].__set__


def document_of_image(document_id: str, data_text: bytes | str | None, rest: Any, origin: Origin) -> Document[Any]:
    """Make a document from an image of its row; `rest` is what `origin` reads the other columns from."""
    document: Document[Any] = object.__new__(origin.kind)
    # Half the time of changing the dict that Python makes. A dict of up to five keys, which the decoded data makes of
    # these four, takes half the time of a larger one.
    _set_state(document, {"id": document_id, "_data": data_text, "_rest": rest, "_origin": origin})
    return document


def _read_version(version: int, _state: dict[str, Any]) -> int:
    return version


class _UnreadData(_Unread):
    """The data. Its usual case, a text, takes half the time of the general one beside the decoding."""

    def __get__(self, document: Document[Any] | None, owner: type[Document[Any]]) -> Any:
        if document is not None:
            state = document.__dict__
            text = state.get("_data")
            if text is not None:
                origin: Origin | None = state.get("_origin")
                decode_text = state.get("_decode", decode) if origin is None else origin.decode_text
                try:
                    data = state.setdefault("data", decode_text(text))
                except UnreadableDocument as exc:
                    raise _named(document, exc) from exc
                state.pop("_data", None)
                return data
        return super().__get__(document, owner)


for _name, _read in (
    ("version", _read_version),
    ("created_at", read_time),
    ("updated_at", read_time),
):
    setattr(Document, _name, _Unread(_name, _read))
setattr(Document, "data", _UnreadData("data", _read_data))  # noqa: B010 (a checker would take it for the field)


class TypedDocument(Document[M_co]):
    """A document of a typed collection.

    Its data is read as the model. All else works on the stored text, which stays: it needs no valid data, and keeps the
    digits of numbers and the fields that the model does not know.
    """

    def __getitem__(self, key: str) -> Any:
        return plain_data(self)[key]

    def __contains__(self, key: object) -> bool:
        return key in plain_data(self)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a stored field, or the default if there is none."""
        return plain_data(self).get(key, default)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Document) or other.__class__ not in {Document, TypedDocument}:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _NOT_DATA) and (
            plain_data(self) == plain_data(other)
        )

    __hash__ = None  # type: ignore[assignment]

    if not TYPE_CHECKING:  # a checker would accept every attribute

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"a Document has no attribute {name!r}: the model is its data, so use document.data.{name}",
                name=name,
                obj=self,
            )


_NOT_DATA: Final = ("id", "version", "created_at", "updated_at")


class _TypedData:
    """The data of a typed document, read on first access and then stored in it."""

    def __get__(self, document: TypedDocument[Any] | None, owner: type[TypedDocument[Any]]) -> Any:
        if document is None:
            raise AttributeError("data")
        state = document.__dict__
        text, reader = state["_data"], _decoder_of(state)
        try:
            return state.setdefault("data", decode_stored(text, reader.read))
        except UnreadableDocument as exc:
            raise _named(document, exc) from exc.__cause__


setattr(TypedDocument, "data", _TypedData())  # noqa: B010 (as above)


def _decoder_of(state: dict[str, Any]) -> Any:
    origin: Origin | None = state.get("_origin")
    return state.get("_decode", decode) if origin is None else origin.decode_text


def _stored_text(state: dict[str, Any]) -> bytes | str | None:
    return state["_data"] if "_data" in state else encode(state["data"])  # `dataclasses.replace` leaves only the model


def plain_data(document: Document[Any]) -> Any:
    """Return the data as JSON values, of a document that may have a model."""
    if document.__class__ is not TypedDocument:
        data = document.data
        return data if data.__class__ is dict or is_json_type(data) else decode(encode(data))  # of a made document
    state = document.__dict__
    found = state.get("_plain", _ABSENT)
    if found is _ABSENT:
        try:
            found = state.setdefault("_plain", decode_stored(_stored_text(state), _decoder_of(state)))
        except UnreadableDocument as exc:
            raise _named(document, exc) from exc
    return found


def projection_of(document: Document[Any]) -> Any:
    """Return the projection that a document was read with; `None` for the whole data."""
    return document.__dict__.get("_projection")


def data_text(document: Document[Any]) -> bytes | str:
    """Return a document's data as JSON, without encoding it again if it was not accessed."""
    text: bytes | str | None = document.__dict__.get("_data")
    return encode(document.data) if text is None else text


def to_be_decoded_by(decode_text: JsonDecoder, document: Document[Any]) -> Document[Any]:
    """Return a copy whose data is decoded by another function, unless it was accessed; or by the reader of a model."""
    usual = Document if document.__class__ is TypedDocument else document.__class__
    kind: type[Document[Any]] = TypedDocument if isinstance(decode_text, ModelReader) else usual
    copy = object.__new__(kind)
    copy.__dict__.update(document.__dict__)
    if TypedDocument in {kind, document.__class__}:
        copy.__dict__["_data"] = _stored_text(copy.__dict__)
        copy.__dict__.pop("data", None)
        copy.__dict__.pop("_plain", None)
    origin: Origin | None = copy.__dict__.get("_origin")
    if origin is None:
        copy.__dict__["_decode"] = decode_text
    else:
        copy.__dict__["_origin"] = origin._replace(decode_text=decode_text, kind=kind)
    return copy


def document_read_as(reader: Any, document: Document[Any]) -> TypedDocument[Any]:
    """Return a copy whose data is read as a model; the data of the document was not accessed."""
    copy: TypedDocument[Any] = object.__new__(TypedDocument)
    state = copy.__dict__
    state.update(document.__dict__)
    origin: Origin | None = state.get("_origin")
    if origin is None:
        state["_decode"] = reader
    else:
        state["_origin"] = origin._replace(decode_text=reader, kind=TypedDocument)
    return copy
