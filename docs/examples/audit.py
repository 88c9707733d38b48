"""Keep an audit log: who changed what, when, and from what to what, with every change exactly once.

    python audit.py [CONNINFO]

CONNINFO defaults to PGDOC_DSN. The program writes to the collection `audit`. You can kill it at any moment and start it
again.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import pgdoc

AUDIT = "audit"


def watch(store: pgdoc.Store) -> pgdoc.ChangeStream:
    """Watch every present and future collection except the log itself."""
    return store.watch(consumer=AUDIT, where={"collection": {"$ne": AUDIT}})


def record(store: pgdoc.Store, stream: pgdoc.ChangeStream, event: pgdoc.ChangeEvent) -> None:
    """Write an entry for an event. The entry and the consumer's position commit together, or neither does."""
    with store.transaction() as tx:
        try:
            tx[AUDIT].insert(pgdoc.new_id(), {**facts(event), **contents(event)})
        except (pgdoc.UnreadableDocument, pgdoc.InvalidDocument) as error:  # no data may stop the log
            tx[AUDIT].insert(pgdoc.new_id(), {**facts(event), "who": None, "problem": str(error)})
        stream.checkpoint(event, tx)


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


def main() -> None:
    """Record every change until interrupted."""
    conninfo = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PGDOC_DSN", "")
    with pgdoc.Store(conninfo) as store, watch(store) as stream:
        for event in stream:
            record(store, stream, event)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
