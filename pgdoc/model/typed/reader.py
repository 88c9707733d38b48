"""Reads JSON text as the model of a typed collection."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Generic, Self, cast, get_args, get_origin
from weakref import WeakValueDictionary

from pgdoc.errors import InvalidInput, InvalidModel, MissingExtra, PgdocError, UnreadableDocument
from pgdoc.model.json_codec import decode as usual_decode
from pgdoc.model.type_variables import M, N
from pgdoc.model.typed.kinds import MSGSPEC, Fault, kind_of, members_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeForm

    from pgdoc.model.json_codec import JsonDecoder

__all__ = ["ModelReader", "reader_of"]


class ModelReader(Generic[M]):
    """Reads the data of documents as a model. It is also a `JsonDecoder`, which decodes the same text to JSON values.

    So whatever decodes the documents of a typed collection without knowing of models decodes them as it always does.

    Attributes:
        model: the class, or the union of classes.
        name: its name in messages.
        classes: instances of these are stored as they are.
        plain: decodes JSON values.
        untyped: the decoder that the store has without the model; `None` for the usual one.
    """

    __slots__ = ("__weakref__", "_decode", "_fault_of", "classes", "model", "name", "plain", "untyped")

    def __init__(self, model: Any, untyped: JsonDecoder | None = None) -> None:
        kind = kind_of(model)
        self.model, self.classes = model, kind.classes
        self.untyped, self.plain = untyped, untyped or usual_decode
        self.name = name_of(model)
        make, self._fault_of = _functions_of(kind.library, self.name)
        try:
            self._decode: Callable[[bytes | str], M] = make(model)
        except PgdocError:
            raise
        except Exception as exc:
            why = next(iter(str(exc).splitlines()), type(exc).__name__)
            raise InvalidInput(
                f"{kind.library} can't read model {self.name}: {why}. Correct the model, or first define what it names"
            ) from exc

    def __call__(self, text: bytes | str) -> Any:
        """Decode JSON values."""
        return self.plain(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return reader_of, (self.model, self.untyped)

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
            fault = self._fault_of(exc, text) or Fault("", f"reading it raised {type(exc).__name__} ({exc})")
            where = f"at {fault.path!r}: " if fault.path else ""
            more = f" (and {fault.others} more)" if fault.others else ""
            raise InvalidModel(
                f"the data is not a valid {self.name}: {where}{fault.reason}{more}", path=fault.path, model=self.name
            ) from exc


def reader_of(model: TypeForm[N], untyped: JsonDecoder | None = None) -> ModelReader[N]:
    """Return the reader of a model; `untyped` is the decoder of the store, if it has one.

    It is the same one while it is in use, and for the classes of modules, of which making one can take longer than a
    query, always.

    Raises:
        InvalidInput: it is not a model, or its library can't read it.
        MissingExtra: the library that reads it is not installed.
    """
    try:
        key = (_parts_of(model), untyped)
        reader = _readers.get(key)
    except TypeError:  # the metadata of an `Annotated` need not be hashable
        return ModelReader(model, untyped)
    if reader is None:
        reader = _readers.setdefault(key, ModelReader(model, untyped))
        if all(map(_is_of_module, members_of(model))):
            _kept[key] = reader
    return cast("ModelReader[N]", reader)


_readers: Final[WeakValueDictionary[Any, ModelReader[Any]]] = WeakValueDictionary()
"""The readers in use. A class that was made at run time lives no longer than its collections, documents and events."""

_kept: Final[dict[Any, ModelReader[Any]]] = {}
"""Keeps the readers of classes that live as long as their modules."""


def _is_of_module(member: type) -> bool:
    return getattr(sys.modules.get(member.__module__), member.__qualname__, None) is member


def _parts_of(model: Any) -> Any:
    """Return what identifies a model.

    Unions with other orders of their members are equal, but read differently; so are literals, such as 1 and True.
    """
    origin = get_origin(model)
    return (model.__class__, model) if origin is None else (origin, *map(_parts_of, get_args(model)))


def _functions_of(
    library: str, model: str
) -> tuple[Callable[[Any], Any], Callable[[Exception, bytes | str], Fault | None]]:
    """Return what makes the function that reads a model, and what explains the errors of that."""
    try:
        if library == MSGSPEC:
            from pgdoc.model.typed.with_msgspec import msgspec_decoder, msgspec_fault  # noqa: PLC0415 (an extra)

            return msgspec_decoder, msgspec_fault
        from pgdoc.model.typed.with_pydantic import pydantic_decoder, pydantic_fault  # noqa: PLC0415 (as above)
    except ModuleNotFoundError as exc:
        if exc.name != library:
            raise
        extra = "pgdoc[models]" if library == MSGSPEC else library
        raise MissingExtra(f"reading model {model} needs the package {library}: run pip install '{extra}'") from exc
    return pydantic_decoder, pydantic_fault
