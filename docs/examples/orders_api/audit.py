"""Write who changed which order into the collection `audit`, each change exactly once.

pgdoc worker orders_api.audit:worker
"""

import os

import pgdoc

worker = pgdoc.Worker(pgdoc.Store(os.environ["PGDOC_DSN"]))


@worker.on("orders", consumer="audit")
def record(tx: pgdoc.Transaction, events: list[pgdoc.ChangeEvent]) -> None:
    """Write an entry for each event, in one transaction with the consumer's position."""
    tx["audit"].insert_many(
        (
            pgdoc.new_id(),
            {
                "at": event.timestamp,
                "what": event.event_type,
                "order": event.document_id,
                "who": event.metadata.get("user"),
                "request": event.metadata.get("request_id"),
            },
        )
        for event in events
    )
