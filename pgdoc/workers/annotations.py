"""Compares the model that a handler is registered with and the one of which its parameter is annotated."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pgdoc.changes.events import ChangeEvent
from pgdoc.model.typed.kinds import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_annotation"]


def check_annotation(function: Callable[..., Any], parameter: str, model: Any) -> None:
    """Refuse a handler that is annotated for a class that no document has.

    Only `ChangeEvent[Order]`, and a list of these, are looked at, and only if all annotations can be resolved. Those of
    an object with `__call__` would be of its attributes.

    Args:
        function: the handler.
        parameter: that of the events.
        model: the model of the registration; `None` if its documents are dicts.

    Raises:
        TypeError: the parameter is annotated for another class.
    """
    if not inspect.isroutine(function):
        return
    try:
        annotation = get_type_hints(function).get(parameter)
    except Exception:  # noqa: BLE001 (an annotation is code of the user's, which only type checkers may understand)
        return
    event = _argument_of(annotation) if get_origin(annotation) is list else annotation
    wanted = _argument_of(event) if get_origin(event) is ChangeEvent else Any
    given = dict if model is None else model
    if not isinstance(wanted, type) or not isinstance(given, type) or Any in (given, wanted) or _may_be(given, wanted):
        return
    advice = f"pass model={name_of(wanted)}" if model is None else f"annotate it with ChangeEvent[{name_of(given)}]"
    raise TypeError(
        f"{parameter} of the handler {function.__name__} is annotated with ChangeEvent[{name_of(wanted)}], but the "
        f"data of its documents has the class {name_of(given)}: {advice}"
    )


def _argument_of(annotation: Any) -> Any:
    """Return the parameter of a generic class; `Any` for `typing.List`, which has none."""
    return next(iter(get_args(annotation)), Any)


def _may_be(given: type, wanted: type) -> bool:
    """Return whether an instance of `given` may be one of `wanted`: also one of a protocol, or a `TypedDict`."""
    return getattr(wanted, "_is_protocol", False) or issubclass(wanted, dict) or issubclass(given, wanted)
