"""Keep an audit log: who changed what, when, and from what to what, with every change exactly once.

    python audit.py, or: pgdoc worker audit:worker

PGDOC_DSN names the database. The worker writes to the collection `audit`. You can kill it at any moment and start it
again.
"""

from __future__ import annotations

import os
from typing import Any

import pgdoc

AUDIT = "audit"

worker = pgdoc.Worker(pgdoc.Store(os.environ.get("PGDOC_DSN", "")))


@worker.on(consumer=AUDIT, where={"collection": {"$ne": AUDIT}}, retries=None)
def record(tx: pgdoc.Transaction, events: list[pgdoc.ChangeEvent]) -> None:
    """Write an entry for each event of every present and future collection except the log itself."""
    try:
        tx[AUDIT].insert_many((pgdoc.new_id(), {**facts(event), **contents(event)}) for event in events)
    except (pgdoc.UnreadableDocument, pgdoc.InvalidDocument):  # no data may stop the log
        for event in events:
            record_one(tx, event)


def record_one(tx: pgdoc.Transaction, event: pgdoc.ChangeEvent) -> None:
    """Write the entry of one event. If its documents can't be written, the entry has the problem in their place."""
    try:
        tx[AUDIT].insert(pgdoc.new_id(), {**facts(event), **contents(event)})
    except (pgdoc.UnreadableDocument, pgdoc.InvalidDocument) as error:
        tx[AUDIT].insert(pgdoc.new_id(), {**facts(event), "who": None, "problem": str(error)})


def facts(event: pgdoc.ChangeEvent) -> dict[str, Any]:
    """Return who changed what, and when."""
    user = event.metadata.get("user")
    return {
        "who": user if isinstance(user, str) else None,
        "what": str(event.event_type),
        "when": event.timestamp.isoformat(),
        "collection": event.collection,
        "document": event.document_id,
        "transaction": event.transaction_id,
        "resume_token": str(event.resume_token),
    }


def contents(event: pgdoc.ChangeEvent) -> dict[str, Any]:
    """Return the document before and after the change and, for an update, the difference."""
    before, after, plain = event.full_document_before_change, event.full_document, event.to_dict()
    return {
        "before": before.data if before else None,
        "after": after.data if after else None,
        "difference": plain["update_description"],
        "renamed_to": plain["renamed_to"],
    }


if __name__ == "__main__":
    with worker.store:
        worker.run()
