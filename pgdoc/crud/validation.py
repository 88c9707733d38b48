"""JSON Schemas of collections: what a document must look like. No I/O, and no reference is ever fetched.

The package `jsonschema`, of the extra `validation`, is imported on first use.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.crud.validation_path import resolve_pointer, violation_path
from pgdoc.errors import DatabaseError, InvalidInput, MissingExtra, SchemaViolation
from pgdoc.model.json_codec import encode_value
from pgdoc.model.short_repr import short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["JsonSchema", "check_json_schema", "read_json_schema", "schema_params"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DATA: Final = {"const", "enum", "default", "examples", "dependentRequired"}
"""Keywords whose values are no schemas."""

_OF_OTHERS: Final = {
    "bsonType": "use `type` instead of MongoDB's keyword",
    "$jsonSchema": "pass what is in it, as MongoDB's validator has it",
    "$dynamicRef": "use $ref",
    "$dynamicAnchor": "use $ref with a pointer such as #/$defs/name",
    "$anchor": "use $ref with a pointer such as #/$defs/name",
    "$id": "a schema of a collection stands alone",
}


class JsonSchema:
    """A JSON Schema of draft 2020-12.

    Attributes:
        text: its JSON text.
        violation: the jsonpath for the table's check, see `violation_path`.
    """

    def __init__(self, text: str) -> None:
        jsonschema, referencing = _libraries()
        self.text = text
        schema = json.loads(text)
        self.violation = violation_path(schema)
        # Without a registry of its own, the library would fetch the schemas that a document refers to.
        self._validator = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
        self._best_match = jsonschema.exceptions.best_match

    def check(self, subject: str, key: str | None, text: bytes | str) -> None:
        """Raise `SchemaViolation` for a document whose data has this JSON text, if it does not conform."""
        error = self._find(subject, key, lambda: json.loads(text))
        if error is not None:
            raise error

    def find(self, subject: str, key: str | None, data: Any) -> SchemaViolation | None:
        """Return the most telling of the rules that a document breaks; `None` if it conforms."""
        return self._find(subject, key, lambda: data)

    def _find(self, subject: str, key: str | None, load: Callable[[], Any]) -> SchemaViolation | None:
        document = "a document" if key is None else f"document {key!r}"
        try:
            found = self._best_match(self._validator.iter_errors(load()))
        except Exception as exc:  # noqa: BLE001 (a $ref in a circle, a huge number; SQL can have set a schema that is not valid)
            violation = SchemaViolation(
                f"{document} of {subject} can't be compared with the collection's JSON Schema: {short_repr(exc)}. "
                "Correct the document, or change the schema with set_limits()",
                document_id=key,
            )
            violation.__cause__ = exc
            return violation
        if found is None:
            return None
        path = ".".join(map(str, found.absolute_path))
        where = f"the value at {path!r}, {short_repr(found.instance)}," if path else "its data"
        rule = f"{found.validator}: {short_repr(found.validator_value)}"
        return SchemaViolation(
            f"{document} of {subject} does not conform to the collection's JSON Schema: {where} breaks the rule "
            f"{rule}. Correct the document, or change the schema with set_limits()",
            document_id=key,
            path=path,
            rule=found.validator,
            value=found.instance,
        )


def schema_params(value: Any) -> list[str | None]:
    """Check the argument `json_schema`, and return what the catalog's functions take: its text, and its jsonpath."""
    schema = check_json_schema(value)
    return [None, None] if schema is None else [schema.text, schema.violation]


def check_json_schema(value: Any) -> JsonSchema | None:
    """Check the argument `json_schema`; `None` is no schema."""
    if value is None:
        return None
    if not hasattr(value, "keys"):
        raise InvalidInput(f"json_schema must be a mapping, or None for no schema, got {short_repr(value)}")
    text = encode_value(value, "json_schema").decode()
    jsonschema, _ = _libraries()
    schema = json.loads(text)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as exc:
        path = ".".join(map(str, exc.absolute_path))
        raise InvalidInput(f"json_schema is not valid at {path or 'its top'}: {exc.message}", path=path) from exc
    except RecursionError as exc:
        raise InvalidInput("json_schema is nested too deep: move inner schemas to $defs, and refer to them") from exc
    if schema.get("$schema", _DIALECT).rstrip("#") != _DIALECT:
        raise InvalidInput(f"json_schema has $schema {schema['$schema']!r}: pgdoc knows {_DIALECT} only")
    for node in _nodes(schema):
        _check_node(schema, node)
    return read_json_schema(text, "json_schema")


def _check_node(root: Any, node: dict[str, Any]) -> None:
    for keyword, advice in _OF_OTHERS.items():
        if keyword in node and not (keyword == "$id" and node is root):
            raise InvalidInput(f"json_schema has {keyword}, which pgdoc does not know: {advice}", path=keyword)
    reference = node.get("$ref")
    if not isinstance(reference, str):  # none, or a value inside a keyword that is no schema
        return
    if reference != "#" and not reference.startswith("#/"):
        raise InvalidInput(
            f"json_schema has the $ref {reference!r}, which pgdoc does not fetch: copy that schema into $defs, and "
            "refer to #/$defs/name",
            path="$ref",
        )
    if not isinstance(resolve_pointer(root, reference), dict | bool):
        raise InvalidInput(
            f"json_schema has the $ref {reference!r}, and no schema is there: add it, or correct the $ref", path="$ref"
        )


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the schema and all schemas in it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword, value in schema.items():
        if keyword in _DATA:
            continue
        if keyword in {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}:
            inner = list(value.values()) if isinstance(value, dict) else []
        else:
            inner = value if isinstance(value, list) else [value]
        for each in inner:
            yield from _nodes(each)


@lru_cache(maxsize=256)
def read_json_schema(text: str, subject: str) -> JsonSchema:
    """Return the schema with this JSON text, which the owner of the table of `subject` has written."""
    try:
        return JsonSchema(text)
    except MissingExtra:
        raise
    except Exception as exc:
        raise DatabaseError(
            f"the JSON Schema of {subject} can't be read: {exc}. Set it again with set_limits(json_schema=...)"
        ) from exc


def _libraries() -> tuple[Any, Any]:
    try:
        import jsonschema  # noqa: PLC0415 (the extra may be missing)
        import referencing  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtra(
            "the collection has a JSON Schema, and the package jsonschema is not installed: install pgdoc with the "
            'extra "validation", as in pip install "pgdoc[validation]"'
        ) from exc
    return jsonschema, referencing
