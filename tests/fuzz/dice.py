"""Generate documents, and filters, updates, sorts and fields for them; one in four is invalid somewhere."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.fuzz.pools import (
    BAD,
    BAD_PATHS,
    BITS,
    COMMON,
    ELEMENTS,
    FILTER_OPERATORS,
    KEYS,
    PATTERNS,
    RARE,
    SIMPLE_CHANGES,
    TYPES,
    UPDATE_OPERATORS,
)

if TYPE_CHECKING:
    import random


class Dice:
    """Generates documents, filters, updates, sorts and fields from a random number generator."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def pick(self, items: list[Any] | str) -> Any:
        return self.rng.choice(items)

    def one_in(self, count: int) -> bool:
        return self.rng.randrange(count) == 0

    def scalar(self) -> Any:
        return self.pick(RARE) if self.one_in(6) else self.pick(COMMON)

    def value(self, depth: int = 3) -> Any:
        kind = self.rng.randrange(10)
        if depth and kind < 3:
            return [self.value(depth - 1) for _ in range(self.rng.randrange(4))]
        if depth and kind < 5:
            return {self.pick(KEYS): self.value(depth - 1) for _ in range(self.rng.randrange(4))}
        return self.scalar()

    def operand(self) -> Any:
        return self.pick(BAD) if self.one_in(100) else self.value()

    def operands(self) -> Any:
        return self.operand() if self.one_in(15) else [self.operand() for _ in range(self.rng.randrange(4))]

    def document(self) -> dict[str, Any]:
        data = {self.pick(KEYS): self.value() for _ in range(self.rng.randrange(1, 5))}
        if self.one_in(40):
            data[self.pick(["", "a.b", "_", "$"])] = self.value()
        if self.one_in(60):  # a large one, in one of two ways
            key, size = self.pick(KEYS), self.pick([100, 1_000])
            data[key] = self.pick(
                [[self.value(1) for _ in range(size)], {f"k{number}": self.scalar() for number in range(size)}]
            )
        return data

    def path(self, data: dict[str, Any]) -> Any:
        """Return a path that mostly leads into the data, or one part further."""
        if self.one_in(50):
            return self.pick(BAD_PATHS)
        parts: list[str] = []
        here: Any = data
        while isinstance(here, dict | list) and here and not (parts and self.one_in(3)):
            if isinstance(here, dict):
                parts.append(self.pick(list(here)))
                here = here[parts[-1]]
            else:
                index = self.rng.randrange(len(here))
                parts += [] if self.one_in(2) else [str(index)]
                here = here[index]
        if not parts or self.one_in(3):
            parts.append(self.pick(KEYS))
        return ".".join(map(str, parts))

    def value_of(self, data: Any) -> Any:
        """Return a value of the data, or an unrelated one."""
        while isinstance(data, dict | list) and data and not self.one_in(4):
            data = self.pick(list(data.values()) if isinstance(data, dict) else data)
        return self.operand() if self.one_in(3) else data

    def filter(self, data: dict[str, Any], depth: int = 3) -> Any:
        if self.one_in(60):
            return self.pick([[], "a", 1, *BAD])
        result: dict[Any, Any] = {}
        for _ in range(self.pick([1, 1, 1, 2])):
            if depth and self.one_in(5):
                name = self.pick(["$and", "$or", "$nor"])
                inner = [self.filter(data, depth - 1) for _ in range(self.pick([1, 1, 2, 2, 3]))]
                inner += self.branches(data) if self.one_in(12) else []
                result[name] = self.pick([self.operand(), inner]) if self.one_in(15) else inner
            else:
                path = "_id" if self.one_in(10) else self.path(data)
                if isinstance(path, str) and path.startswith("$") and not self.one_in(10):
                    path = f"a.{path}"
                result[path] = self.condition(data, depth)
        return result

    def branches(self, data: dict[str, Any]) -> list[Any]:
        """Return many small filters on few paths."""
        paths = [self.path_text(data).replace("$", "x") for _ in range(self.pick([1, 2]))]
        operators = self.pick([["$eq"], ["$eq"], ["$in"], ["$ne"], ["$gt"], ["$gte", "$lt"], ["$eq", "$lte"]])
        return [
            {
                path: {name: [self.value_of(data)] if name == "$in" else self.value_of(data) for name in operators}
                for path in ([self.pick(paths)] if self.one_in(2) else paths)
            }
            for _ in range(self.pick([9, 20, 100]))
        ]

    def condition(self, data: Any, depth: int) -> Any:
        if self.one_in(4):
            return self.value_of(data)
        return dict(self.operation(data, depth) for _ in range(self.pick([1, 1, 1, 2, 3]))) | (
            {self.pick(["$options", "b", "$foo", "$and", 1]): self.operand()} if self.one_in(80) else {}
        )

    def operation(self, data: Any, depth: int) -> tuple[str, Any]:
        name = self.pick(FILTER_OPERATORS)
        if self.one_in(30):
            return name, self.operand()
        if name in {"$in", "$nin", "$all"}:
            return name, self.items(name, data, depth)
        if name == "$not":
            return name, self.condition(data, depth - 1) if depth else {"$eq": self.value_of(data)}
        if name == "$elemMatch":
            return name, self.element(data, depth)
        return name, self.simple(name, data)

    def simple(self, name: str, data: Any) -> Any:
        if name == "$exists" or name.startswith("$bits"):
            return self.pick(BITS if name != "$exists" else [True, False, 0, None, 1, "", []])
        if name == "$type":
            return self.pick([self.pick(TYPES), [self.pick(TYPES), self.pick(TYPES)]])
        if name == "$size":
            return (
                self.pick([0, 1, 2, 3, 1.0, 1, 2])
                if not self.one_in(5)
                else self.pick([-1, 1.5, 2**31, 10**400, Decimal("1e40")])
            )
        if name == "$mod":
            return [
                self.pick([1, 2, -2, 3, 2.5, 2**63 - 1]),
                self.pick([0, 1, -1, 0.5, 10**400 if self.one_in(9) else 0]),
            ]
        if name == "$regex":
            return self.pattern()
        return self.value_of(data)

    def items(self, name: str, data: Any, depth: int) -> list[Any]:
        items = [
            self.value_of(data)
            for _ in range(self.pick([0, 1, 2, 3, self.pick([20, 20, 1_100]) if self.one_in(10) else 1]))
        ]
        if self.one_in(6):
            items.append({"$regex": self.pattern()})
        if name == "$all" and self.one_in(3):
            return [{"$elemMatch": self.element(data, depth)} for _ in range(self.pick([1, 2]))]
        return items

    def element(self, data: Any, depth: int) -> Any:
        if not depth:
            return {"$eq": self.value_of(data)}
        return self.filter({"a": data, "0": data}, depth - 1) if self.one_in(2) else self.condition(data, depth - 1)

    def pattern(self) -> Any:
        if self.one_in(2):
            return self.pick(PATTERNS)
        return "".join(self.pick("aabb01.^$*+?()[]{}|\\dwsSDb1,-:i\n é") for _ in range(self.rng.randrange(1, 8)))

    def update(self, data: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Return an update, its array filters, and the filter of its call."""
        changes = self.changes(data)
        fields = changes.values() if isinstance(changes, dict) else []
        paths = [path for given in fields if isinstance(given, dict) for path in given]
        arrays = [path.split(".$")[0] for path in paths if isinstance(path, str) and ".$." in f"{path}."]
        wanted = self.filter(data, 1) if self.one_in(3) else {self.pick(KEYS): self.value_of(data)}
        wanted = wanted if isinstance(wanted, dict) else {}
        for array in arrays if not self.one_in(20) else []:
            inner = self.pick(["", "", f".{self.pick(KEYS)}"])
            condition = {array + inner: self.condition(data, 2)}
            wanted = {"$or": [wanted, condition]} if wanted and self.one_in(4) else {**wanted, **condition}
        names = [name for name in "xy" if any(f"$[{name}]" in str(path) for path in paths)]
        names += self.pick(["x", "y", "X"]) if self.one_in(60) else []
        return changes, [self.array_filter(name, data) for name in names], wanted

    def array_filter(self, name: str, data: dict[str, Any]) -> Any:
        if self.one_in(60):
            return self.pick([{}, 1, {name: 1, "z": 1}, {"a.b": {"$foo": 1}}])
        path = self.pick([name, name, f"{name}.{self.pick(KEYS)}"])
        given = {path: self.condition(data, 1)}
        return {self.pick(["$or", "$nor", "$and"]): [given, {name: self.value_of(data)}]} if self.one_in(5) else given

    def changes(self, data: dict[str, Any]) -> Any:
        if self.one_in(60):
            return self.pick([{}, [], "a", {"a": 1}, {"$set": 1}, {1: {}}, *BAD])
        result: dict[Any, Any] = {}
        for _ in range(self.pick([1, 1, 1, 2, 2, 3])):
            name, path = self.pick(UPDATE_OPERATORS), self.update_path(data)
            top = str(path).partition(".")[0]
            if self.one_in(5) or not any(
                top == str(key).partition(".")[0] for paths in result.values() for key in paths
            ):
                result.setdefault(name, {})[path] = self.change(name, data)
        return result

    def update_path(self, data: dict[str, Any]) -> Any:
        path = self.path(data)
        if self.one_in(4) and isinstance(path, str):
            return ".".join(
                self.pick(ELEMENTS) if number and part.isdigit() and not self.one_in(3) else part
                for number, part in enumerate(path.split("."))
            )
        return path

    def change(self, name: str, data: dict[str, Any]) -> Any:
        if self.one_in(30):
            return self.operand()
        if name in SIMPLE_CHANGES:
            return self.pick(SIMPLE_CHANGES[name])
        if name == "$rename":
            return self.path(data)
        if name == "$pullAll":
            return [self.value_of(data) for _ in range(self.rng.randrange(3))]
        if name == "$pull":
            return self.pick([self.value_of(data), self.condition(data, 2), self.filter({"a": data}, 1)])
        modifies = name in {"$push", "$addToSet"} and not self.one_in(3)
        return self.modifiers(name, data) if modifies else self.value_of(data)

    def modifiers(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {"$each": [self.value_of(data) for _ in range(self.rng.randrange(4))]}
        if name == "$push" or self.one_in(20):
            choices: dict[str, list[Any]] = {
                "$slice": [0, 1, 2, -1, -2, 10**30, Decimal("1e40")],
                "$position": [0, 1, -1, 9, -9, 10**400, 1.5],
            }
            given |= {key: self.pick(values) for key, values in choices.items() if self.one_in(3)}
            if self.one_in(3):
                given["$sort"] = self.pick(
                    [1, -1, {self.path(data): self.pick([1, -1, 2])}, {"a": 1, "b": -1}, {"a.0": -1}, 0]
                )
        if self.one_in(20):
            del given["$each"]
        return given

    def sort(self, data: dict[str, Any]) -> list[Any]:
        return [self.pick(["", "-"]) + self.path_text(data) for _ in range(self.pick([1, 1, 2]))]

    def path_text(self, data: dict[str, Any]) -> str:
        path = self.path(data)
        return path if isinstance(path, str) else "a"

    def fields(self, data: dict[str, Any]) -> tuple[Any, Any]:
        """Return the fields, and the filter that a position refers to."""
        if self.one_in(2):
            sign = self.pick(["", "-"])
            return [sign + self.path_text(data) for _ in range(self.pick([1, 2, 3]))], {}
        wanted = self.filter(data)
        plain = self.pick([0, 1])
        return dict(self.field(data, wanted, plain) for _ in range(self.pick([1, 2, 3]))), wanted

    def field(self, data: dict[str, Any], wanted: Any, plain: int) -> tuple[Any, Any]:
        path = self.path_text(data)
        kind = self.rng.randrange(6)
        if kind == 0:
            return path, plain
        if kind == 1:
            return path, {"$slice": self.pick([0, 1, 2, -1, -9, [1, 1], [-2, 9], [0, 0], "1", 2**40])}
        if kind == 2:
            return path.partition(".")[0], {"$elemMatch": self.element(self.value_of(data), 2)}
        if kind == 3 and isinstance(wanted, dict) and wanted:
            parts = str(self.pick(list(wanted))).split(".")
            return ".".join([*parts[: self.rng.randrange(1, len(parts) + 1)], "$"]), 1
        return self.pick(["x", "y", *KEYS]), self.expression(data)

    def expression(self, data: dict[str, Any], depth: int = 3) -> Any:
        kind = self.rng.randrange(6 if depth else 2)
        if kind == 0:
            return {"$literal": self.operand()}
        if kind < 3:
            return "$" + self.path_text(data)
        inner = self.expression(data, depth - 1)
        if kind == 3:
            return {self.pick(["$size", "$first", "$last", "$add"]): inner}
        if kind == 4:
            return {"$arrayElemAt": [inner, self.pick([0, 1, -1, 9, -9, 2**31])]}
        return {"$ifNull": [inner, self.expression(data, depth - 1)]}
