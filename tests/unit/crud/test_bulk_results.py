from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.crud.bulk_results import (
    Target,
    at_version,
    changed,
    counted,
    deleted,
    exists,
    incomplete,
    inserted,
    inserted_or_dropped,
    size_of,
    stored,
    updated,
    upserted,
    upserted_or_dropped,
    written_or_dropped,
)
from pgdoc.errors import DatabaseError, DuplicateDocument, InvalidUpdate, VersionConflict
from pgdoc.errors.documents import BulkFailure
from pgdoc.query.updates.parse import parse_update

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = Target("update", "orders", 'collection "docs.orders"', "o-1")
MANY = Target("update_many", "orders", TARGET.subject, None)
UPDATE = parse_update({"$inc": {"n": 1}})


@pytest.mark.parametrize(
    ("judge", "rows", "done"),
    [
        (partial(inserted, TARGET), [(1, None, None)], ("inserted", 1)),
        (partial(stored, TARGET), [(1, None, None)], ("inserted", 1)),
        (partial(stored, TARGET), [(2, None, None)], ("changed", 1)),
        (partial(changed, TARGET, 1), [(2, None, None)], ("changed", 1)),
        (partial(changed, TARGET, None), [], ("changed", 0)),
        (partial(deleted, TARGET, 1), [(True,)], ("deleted", 1)),
        (partial(deleted, TARGET, None), [], ("deleted", 0)),
        (counted, [(7,)], ("deleted", 7)),
        (counted, [], ("deleted", 0)),
        (partial(updated, TARGET, UPDATE), [(3, 3, None, None)], ("changed", 3)),
        (partial(updated, TARGET, UPDATE), [], ("changed", 0)),
        (partial(updated, MANY, UPDATE), [(3, 4, None, None)], ("changed", 3)),
        (partial(upserted, TARGET, UPDATE), [(1, None)], ("inserted", 1)),
        (partial(upserted, TARGET, UPDATE), [(2, None)], ("changed", 1)),
        (partial(upserted, TARGET, UPDATE), [], ("changed", 0)),
        (partial(at_version, TARGET, 3), [(3,)], ("changed", 0)),
        (partial(exists, InvalidUpdate("none")), [(3,)], ("changed", 0)),
    ],
)
def test_what_rows_mean(judge: Callable[[Any], Any], rows: list[Any], done: tuple[str, int]) -> None:
    assert judge(rows) == done


@pytest.mark.parametrize("judge", [partial(stored, TARGET), partial(changed, TARGET, 3), partial(deleted, TARGET, 3)])
def test_a_missing_row_of_a_document_that_exists_was_dropped(judge: Callable[[Any], Any]) -> None:
    with pytest.raises(
        DatabaseError, match=r"document 'o-1' of collection \"docs.orders\" was not written: a row policy"
    ):
        judge([])


@pytest.mark.parametrize(
    ("judge", "looked"),
    [
        (partial(inserted_or_dropped, TARGET), []),
        (partial(written_or_dropped, TARGET, partial(changed, TARGET, None)), [(1,)]),
        (partial(upserted_or_dropped, TARGET, UPDATE), []),
        (partial(upserted_or_dropped, TARGET, UPDATE), [("{}", 1, None, None, True, False)]),
    ],
)
def test_a_look_finds_a_dropped_write(judge: Callable[[Any, Any], Any], looked: list[Any]) -> None:
    with pytest.raises(DatabaseError, match="was not written"):
        judge([], looked)


def test_fewer_changed_documents_than_were_to_change_were_dropped() -> None:
    with pytest.raises(DatabaseError, match="was not written"):
        updated(TARGET, UPDATE, [(0, 1, None, None)])


@pytest.mark.parametrize(
    ("judge", "looked", "done"),
    [
        (partial(written_or_dropped, TARGET, partial(changed, TARGET, None)), [], ("changed", 0)),
        (partial(upserted_or_dropped, TARGET, UPDATE), [("{}", 1, None, None, True, True)], ("changed", 0)),
    ],
)
def test_a_look_confirms_a_write_without_effect(
    judge: Callable[[Any, Any], Any], looked: list[Any], done: tuple[str, int]
) -> None:
    assert judge([], looked) == done


def test_a_missing_row_is_a_duplicate() -> None:
    with pytest.raises(DuplicateDocument, match="'o-1'") as raised:
        inserted(TARGET, [])
    assert raised.value.document_id == "o-1"


@pytest.mark.parametrize(
    ("judge", "row"),
    [
        (partial(updated, TARGET, UPDATE), (0, 1, "o-1", '{"n": "text"}')),
        (partial(upserted, TARGET, UPDATE), (2, '{"n": "text"}')),
    ],
)
def test_a_misfit_names_its_place(judge: Callable[[Any], Any], row: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidUpdate, match=r"'o-1' of collection \"docs.orders\"") as raised:
        judge([row])
    assert (raised.value.path, raised.value.operator) == ("n", "$inc")


@pytest.mark.parametrize("found", [None, 2])
def test_another_version_is_a_conflict(found: int | None) -> None:
    with pytest.raises(VersionConflict, match="not at version 3") as raised:
        at_version(TARGET, 3, [] if found is None else [(found,)])
    assert raised.value.found_version == found


def test_what_has_to_be_there() -> None:
    error = InvalidUpdate("none")
    with pytest.raises(InvalidUpdate) as raised:
        exists(error, [])
    assert raised.value is error


def test_sizes_are_about_those_of_the_texts() -> None:
    assert size_of(["x" * 100, ["a", "bc"], 7, None, True]) == 127


def test_the_error_of_an_unordered_bulk_counts_in_english() -> None:
    failure = BulkFailure(3, "insert", "orders", "o-1", DuplicateDocument("o-1 exists"))
    assert str(incomplete((failure,))).startswith("1 write of the bulk failed, all others are stored: write 3")
    assert str(incomplete((failure, failure))).startswith("2 writes of the bulk failed, all others")
