from __future__ import annotations

import inspect
from http import HTTPStatus
from typing import Any

import orjson
import pytest

import pgdoc
from pgdoc import errors
from pgdoc.web.problems import problem_of

HIDDEN = "host=db.internal SELECT"
STATUSES = {
    "CollectionNotFound": 404,
    "ConsumerNotFound": 404,
    "DuplicateDocument": 409,
    "VersionConflict": 409,
    "HistoryLost": 410,
    "DocumentTooLarge": 413,
    "InvalidInput": 422,
    "InvalidName": 422,
    "InvalidDocument": 422,
    "SchemaViolation": 422,
    "InvalidEvent": 422,
    "InvalidFilter": 422,
    "InvalidUpdate": 422,
    "InvalidResumeToken": 422,
    "ModelViolation": 422,
    "CommitUnknown": 500,
    "StoreClosed": 503,
    "UpgradePrepared": 503,
    "WaitTimeout": 503,
    "ServerUnreachable": 503,
    "TransactionLost": 503,
    "PoolExhausted": 503,
    "SlotsExhausted": 503,
    "SlotBlocked": 503,
    "SerializationFailure": 503,
    "LogUnreachable": 503,
    "LogFull": 503,
}


def made(name: str) -> errors.PgdocError:
    cls: Any = getattr(errors, name)
    values: dict[str, Any] = {"holders": (), "failures": (), "found_version": 3, "index": 0, "collection": "orders"}
    values |= {"document_id": "o-1", "found": "", "needed_version": "2", "until": "", "after": None, "reason": "x"}
    wanted = [each for each in inspect.signature(cls.__init__).parameters.values() if each.default is each.empty]
    named = {each.name: values.get(each.name, "") for each in wanted if each.kind is each.KEYWORD_ONLY}
    error: errors.PgdocError = cls(HIDDEN, "", **named) if name == "TableRefused" else cls(HIDDEN, **named)
    return error


@pytest.mark.parametrize("name", [name for name in errors.__all__ if not name.startswith("Bulk")])
def test_each_error_has_its_status_and_tells_no_secret(name: str) -> None:
    found = problem_of(made(name))
    body = orjson.loads(found.body)
    assert found.status == body["status"] == STATUSES.get(name, 500)
    assert body["error"] == name
    assert ("Retry-After" in found.headers) == (found.status == 503)
    assert (HIDDEN in found.body.decode()) == (found.status < 500)


def test_a_conflict_of_a_request_with_if_match_is_a_failed_precondition() -> None:
    conflict = errors.VersionConflict("no", found_version=3)
    assert problem_of(conflict, has_if_match=True).status == 412
    assert problem_of(errors.DuplicateDocument("no"), has_if_match=True).status == 409


def test_a_body_has_what_a_program_can_act_on() -> None:
    error = errors.SchemaViolation("no", document_id="o-1", path="total", rule="minimum", value=-1)
    assert orjson.loads(problem_of(error, request_id="r-1").body) == {
        "title": HTTPStatus(422).phrase,
        "status": 422,
        "error": "SchemaViolation",
        "detail": "no",
        "document_id": "o-1",
        "path": "total",
        "rule": "minimum",
        "request_id": "r-1",
    }


def test_a_bulk_has_the_status_of_its_write() -> None:
    failed = errors.BulkError("no", index=0, collection="orders", document_id="o-1")
    failed.__cause__ = errors.DuplicateDocument("id")
    assert problem_of(failed).status == 409
    failure = pgdoc.BulkFailure(0, "insert", "orders", "o-1", errors.InvalidDocument("no"))
    assert problem_of(errors.BulkIncomplete("no", failures=(failure,))).status == 422
    assert problem_of(errors.BulkError("no", index=0, collection="orders", document_id=None)).status == 500


def test_an_id_that_json_can_not_hold_does_no_harm() -> None:
    body = orjson.loads(problem_of(errors.DuplicateDocument("no", document_id="\ud800")).body)
    assert body["document_id"] == "?"


def test_a_document_that_can_not_be_read_is_named_without_what_the_message_quotes() -> None:
    read = errors.InvalidModel(HIDDEN, path="lines.0", model="Order", collection="orders", document_id="o-1")
    found = problem_of(read)
    assert found.status == 500
    body = orjson.loads(found.body)
    assert (body["collection"], body["document_id"], "path" in body) == ("orders", "o-1", False)
    assert HIDDEN not in found.body.decode()


def test_data_that_a_client_sent_and_the_model_refuses_is_the_clients() -> None:
    sent = errors.ModelViolation("no", path="lines.0", model="Order", collection="orders", document_id="o-1")
    found = problem_of(sent)
    body = orjson.loads(found.body)
    assert (found.status, body["detail"], body["document_id"], body["path"]) == (422, "no", "o-1", "lines.0")
