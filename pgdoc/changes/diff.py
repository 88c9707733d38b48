"""The difference between two images of a document, as dotted paths: `diff`, and its inverse `UpdateDescription.apply`.

The law: ``diff(before, after).apply(before)`` equals ``after``, for any two JSON objects. Equality is that of jsonb:
``1`` equals ``1.0``, ``True`` differs from ``1``, and the order of keys does not matter.

1. `_diff_plain` descends both images once and builds dotted paths as it goes. It gives up at the first changed path
   that is ambiguous: a key is empty, has a dot or consists of digits. Then the two steps below start anew.
2. `_walk` descends both images and records a `_Change` wherever they differ.
3. `_describe` turns the path of each change into dotted text. Two paths can have the same text (``{"a.b": 1}`` and
   ``{"a": {"b": 1}}``). If both changed, the whole field above the deeper one is reported: `_diff_any` walks again with
   that field in ``whole``. Each round shortens a path, and top-level fields never share a text, so this ends.

Both walks use a list instead of recursion, so depth has no limit. C code compares equal subtrees, which are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

from orjson import dumps as _dumps

_Path: TypeAlias = tuple[str | int, ...]

_MISSING: Any = object()
_NUMBERS = frozenset((int, float, Decimal))  # exact classes, so a bool is not a number


class _Change(NamedTuple):
    path: _Path
    value: Any = None  # the new value, or the new size of an array that got shorter
    kind: str = "updated"


@dataclass(frozen=True)
class UpdateDescription:
    """The difference that an update made to a document.

    Fields are named by dotted paths: a part of digits is an array index, every other part an object key. Where that
    does not hold, because a key contains a dot, is empty or consists of digits, `disambiguated_paths` has the parts.

    Attributes:
        updated_fields: the new value by dotted path. Includes elements appended to an array, such as `"items.3"`.
        removed_fields: the dotted paths of removed fields.
        truncated_arrays: `(dotted path, new size)` of each array that got shorter.
        disambiguated_paths: the parts of ambiguous paths by dotted path: object keys as `str`, array indexes as `int`.
    """

    updated_fields: dict[str, Any]
    removed_fields: list[str]
    truncated_arrays: list[tuple[str, int]]
    disambiguated_paths: dict[str, list[str | int]]

    def apply(self, before: dict[str, Any]) -> dict[str, Any]:
        """Apply the update to the document's data before it.

        Args:
            before: the data before the update. It is not modified.

        Returns:
            The data after the update: a copy that shares no list or dict with `before` or this description.
        """
        result: dict[str, Any] = _copy(before)
        for text, size in self.truncated_arrays:
            parent, last = self._find(result, text)
            del parent[last][size:]
        for text in self.removed_fields:
            parent, last = self._find(result, text)
            del parent[last]
        for text, value in self.updated_fields.items():
            parent, last = self._find(result, text)
            if parent.__class__ is list and last >= len(parent):
                parent.extend([None] * (last + 1 - len(parent)))
            parent[last] = _copy(value)
        return result

    def parts(self, path: str) -> list[str | int]:
        """Split a dotted path of this description: object keys as `str`, array indexes as `int`."""
        found = self.disambiguated_paths.get(path)
        return found or [int(part) if _digits(part) else part for part in path.split(".")]

    def _find(self, data: dict[str, Any], path: str) -> tuple[Any, Any]:
        *above, last = self.parts(path)
        parent: Any = data
        for part in above:
            parent = parent[part]
        return parent, last


def describe_update(old: Any, new: Any) -> UpdateDescription | None:
    """Return how one document becomes another; `None` unless both are objects, as a table's document need not be."""
    return diff(old, new) if isinstance(old, dict) and isinstance(new, dict) else None


def diff(before: dict[str, Any], after: dict[str, Any]) -> UpdateDescription:
    """Describe how one image of a document differs from another; share no list or dict with either.

    Both images are plain data, as `json_codec.decode` returns it.
    """
    return _diff_plain(before, after) or _diff_any(before, after)


def _diff_plain(before: dict[str, Any], after: dict[str, Any]) -> UpdateDescription | None:
    """Return the difference, or `None` if a changed path is ambiguous. Takes half the time of `_diff_any`."""
    found = _empty_description()
    todo: list[tuple[str, Any, Any]] = []
    if not _note_fields("", before, after, found, todo):
        return None
    for prefix, old, new in todo:  # grows during the loop
        if old.__class__ is list:
            for index, was, value in _differing_elements(old, new):
                _note(f"{prefix}{index}", was, value, found, todo)
            if len(new) < len(old):
                found.truncated_arrays.append((prefix[:-1], len(new)))
        elif not _note_fields(prefix, old, new, found, todo):
            return None
    return found


def _note_fields(
    prefix: str, old: dict[str, Any], new: dict[str, Any], found: UpdateDescription, todo: list[tuple[str, Any, Any]]
) -> bool:
    """Note how the fields of two objects differ; return `False` if the path of one is ambiguous."""
    kept, get = len(new), old.get
    for key, value in new.items():
        was, kind = get(key, _MISSING), value.__class__
        if kind is was.__class__:  # `_same`, inline: a call takes as long
            try:
                if _dumps(value) == _dumps(was) if kind is dict or kind is list else value == was:
                    continue
            except TypeError:
                pass
        elif was is _MISSING:
            kept -= 1
        elif _same(was, value):
            continue
        if not key.isidentifier() and _ambiguous(key):
            return False
        if kind is dict or kind is list:
            _note(f"{prefix}{key}", was, value, found, todo)
        else:
            found.updated_fields[f"{prefix}{key}"] = value
    return kept == len(old) or _note_removed(prefix, old, new, found)


def _note(path: str, was: Any, value: Any, found: UpdateDescription, todo: list[tuple[str, Any, Any]]) -> None:
    """Note a value that differs: two containers of one kind are walked, too."""
    kind = value.__class__
    if kind is not dict and kind is not list:
        found.updated_fields[path] = value
    elif kind is was.__class__:
        todo.append((f"{path}.", was, value))
    else:
        found.updated_fields[path] = _copy(value)


def _note_removed(prefix: str, old: dict[str, Any], new: dict[str, Any], found: UpdateDescription) -> bool:
    gone = [key for key in old if key not in new]
    found.removed_fields.extend([f"{prefix}{key}" for key in gone])
    return not any(map(_ambiguous, gone))


def _empty_description() -> UpdateDescription:
    """Make a description in a third of the time that the constructor of a frozen dataclass takes."""
    description = object.__new__(UpdateDescription)
    state: dict[str, Any] = {
        "updated_fields": {},
        "removed_fields": [],
        "truncated_arrays": [],
        "disambiguated_paths": {},
    }
    _set_state(description, state)
    return description


_set_state = UpdateDescription.__dict__["__dict__"].__set__


def _diff_any(before: dict[str, Any], after: dict[str, Any]) -> UpdateDescription:
    whole: set[_Path] = set()
    while True:
        description, clashes = _describe(_walk(before, after, whole))
        if not clashes:
            return description
        whole |= clashes


def _walk(before: dict[str, Any], after: dict[str, Any], whole: set[_Path]) -> list[_Change]:
    changes: list[_Change] = []
    todo: list[tuple[_Path, Any, Any]] = [((), before, after)]
    for path, old, new in todo:  # grows during the loop
        for key, was, value in _differing_fields(old, new) if old.__class__ is dict else _differing_elements(old, new):
            here = (*path, key)
            kind = value.__class__
            if kind is was.__class__ and (kind is dict or kind is list) and here not in whole:
                todo.append((here, was, value))
            else:
                changes.append(_Change(here, value))
        if old.__class__ is dict:
            if not old.keys() <= new.keys():
                changes += [_Change((*path, key), kind="removed") for key in old if key not in new]
        elif len(new) < len(old):
            changes.append(_Change(path, len(new), "truncated"))
    return changes


def _differing_fields(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    return [(key, was, value) for key, value in new.items() if not _same(was := old.get(key, _MISSING), value)]


def _differing_elements(old: list[Any], new: list[Any]) -> list[tuple[Any, Any, Any]]:
    differing: list[tuple[Any, Any, Any]] = [
        (index, was, value)
        for index, (was, value) in enumerate(zip(old, new, strict=False))
        if was is not value
        and (was.__class__ is not (kind := value.__class__) or kind is dict or kind is list or was != value)
        and not _same(was, value)
    ]
    return differing + [(index, _MISSING, new[index]) for index in range(len(old), len(new))]


def _same(was: Any, value: Any) -> bool:
    """Return whether two values are certainly equal. `False` for containers means that they must be walked."""
    kind = value.__class__
    if kind is not was.__class__:
        return kind in _NUMBERS and was.__class__ in _NUMBERS and bool(was == value)
    if kind is not dict and kind is not list:
        return bool(was == value)
    try:
        # Python has [True] == [1], but their texts differ. Those of values that jsonb has as equal, 1 and 1.0, do too.
        return _dumps(value) == _dumps(was)
    except TypeError:  # a Decimal or a long integer inside, or nested too deep
        return False


def _describe(changes: list[_Change]) -> tuple[UpdateDescription, set[_Path]]:
    description = UpdateDescription({}, [], [], {})
    paths: dict[str, _Path] = {}  # by text
    clashes: set[_Path] = set()
    for path, value, kind in changes:
        text = ".".join(map(str, path))
        if (other := paths.setdefault(text, path)) is not path:
            clashes.add(_field_above(path, other))
        if any(map(_ambiguous, path)):
            description.disambiguated_paths[text] = list(path)
        if kind == "updated":
            description.updated_fields[text] = _copy(value)
        elif kind == "removed":
            description.removed_fields.append(text)
        else:
            description.truncated_arrays.append((text, value))
    return description, clashes


def _field_above(one: _Path, other: _Path) -> _Path:
    """Return the path to the field above the deeper of two paths that have one text.

    They part at a key that has a dot in one and is split there in the deeper one.
    """
    depth = next(depth for depth, (key, other_key) in enumerate(zip(one, other, strict=False)) if key != other_key)
    deeper = min(one, other, key=lambda path: len(str(path[depth])))
    return deeper[: depth + 1]


def _ambiguous(part: str | int) -> bool:
    return isinstance(part, str) and (not part or "." in part or _digits(part))


def _digits(part: str) -> bool:
    return part.isascii() and part.isdigit()


def _copy(value: Any) -> Any:
    if value.__class__ is not dict and value.__class__ is not list:
        return value
    top = [value]
    todo: list[Any] = [top]
    for container in todo:  # grows during the loop: no recursion, so depth has no limit
        for key, child in container.items() if container.__class__ is dict else enumerate(container):
            if child.__class__ is dict or child.__class__ is list:
                container[key] = fresh = child.copy()
                todo.append(fresh)
    return top[0]
