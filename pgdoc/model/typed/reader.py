"""Reads JSON text as the model of a typed collection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, cast, get_args, get_origin
from weakref import WeakValueDictionary

from pgdoc.errors import InvalidInput, InvalidModel, MissingExtra, PgdocError, UnreadableDocument
from pgdoc.model.json_codec import decode as usual_decode
from pgdoc.model.type_variables import M, N
from pgdoc.model.typed.kinds import MSGSPEC, kind_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from typing_extensions import TypeForm

    from pgdoc.model.json_codec import JsonDecoder

__all__ = ["Fault", "ModelReader", "reader_of"]


class Fault(NamedTuple):
    """What a library found.

    Attributes:
        path: the dotted path of the value; empty for the whole data.
        reason: what is wrong with it.
        others: how many more faults there are.
    """

    path: str
    reason: str
    others: int = 0


class ModelReader(Generic[M]):
    """Reads the data of documents as a model. It is also a `JsonDecoder`, which decodes the same text to JSON values.

    So whatever decodes the documents of a typed collection without knowing of models decodes them as it always does.

    Attributes:
        model: the class, or the union of classes.
        name: its name in messages.
        classes: instances of these are stored as they are.
        plain: decodes JSON values.
    """

    __slots__ = ("__weakref__", "_decode", "_fault_of", "classes", "model", "name", "plain")

    def __init__(self, model: Any, plain: JsonDecoder) -> None:
        kind = kind_of(model)
        self.model, self.plain, self.classes = model, plain, kind.classes
        self.name = name_of(model)
        library = _import(kind.library, self.name)
        try:
            self._decode: Callable[[bytes | str], M] = library.decoder_of(model)
        except PgdocError:
            raise
        except Exception as exc:
            raise InvalidInput(f"{kind.library} can't read model {self.name}: {exc}") from exc
        self._fault_of: Callable[[Exception], Fault | None] = library.fault_of

    def __call__(self, text: bytes | str) -> Any:
        """Decode JSON values."""
        return self.plain(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return reader_of, (self.model, self.plain)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def read(self, text: bytes | str) -> M:
        """Return the model of a document's data.

        Raises:
            InvalidModel: the data is not valid for the model, or a validator of the model raised an error.
            UnreadableDocument: Python can't hold the data.
        """
        try:
            return self._decode(text)
        except UnreadableDocument:
            raise
        except Exception as exc:
            fault = self._fault_of(exc) or Fault("", f"reading it raised {type(exc).__name__} ({exc})")
            where = f"at {fault.path!r}: " if fault.path else ""
            more = f" (and {fault.others} more)" if fault.others else ""
            raise InvalidModel(
                f"the data is not a valid {self.name}: {where}{fault.reason}{more}", path=fault.path, model=self.name
            ) from exc


def reader_of(model: TypeForm[N], plain: JsonDecoder | None = None) -> ModelReader[N]:
    """Return the reader of a model, the same one while it is in use; `plain` decodes JSON values.

    Raises:
        InvalidInput: it is not a model, or its library can't read it.
        MissingExtra: the library that reads it is not installed.
    """
    plain = plain or usual_decode
    try:
        key = (_parts_of(model), plain)
        reader = _readers.get(key)
    except TypeError:  # the metadata of an `Annotated` need not be hashable
        return ModelReader(model, plain)
    if reader is None:
        reader = _readers.setdefault(key, ModelReader(model, plain))
    return cast("ModelReader[N]", reader)


_readers: Final[WeakValueDictionary[Any, ModelReader[Any]]] = WeakValueDictionary()
"""The readers in use. A class that was made at run time lives no longer than its collections, documents and events."""


def _parts_of(model: Any) -> Any:
    """Return what identifies a model: unions with other orders of their members are equal, but read differently."""
    origin = get_origin(model)
    return model if origin is None else (origin, *map(_parts_of, get_args(model)))


def _import(library: str, model: str) -> ModuleType:
    try:
        return import_module(f"pgdoc.model.typed.with_{library}")
    except ModuleNotFoundError as exc:
        if exc.name != library:
            raise
        extra = "pgdoc[models]" if library == MSGSPEC else library
        raise MissingExtra(f"reading model {model} needs the package {library}: run pip install '{extra}'") from exc
