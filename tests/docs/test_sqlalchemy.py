"""A handler with models of SQLAlchemy has each effect once, wherever its process is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

import pgdoc
from tests.docs.project import environment, finish_worker, kill_worker
from tests.examples.dying import STEPS

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import pgdoc
from pgdoc.sqlalchemy import session_in


class Base(DeclarativeBase):
    pass


class Invoice(Base):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[str]


worker = pgdoc.Worker(pgdoc.Store(os.environ["PGDOC_DSN"]))


@worker.on("orders", consumer="invoicing")
def invoice(tx, events):
    with session_in(tx) as session:
        session.add_all(Invoice(order=event.document_id) for event in events)
        session.commit()
"""


def test_a_worker_that_is_killed_at_every_step_writes_each_row_once(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    variables = environment(tmp_path, PGDOC_DSN=dsn)
    orders = [f"o-{number}" for number in range(24)]
    with pgdoc.Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute('CREATE TABLE invoices (id serial PRIMARY KEY, "order" text NOT NULL)')
        store.create_consumer("invoicing", "orders")
        store["orders"].insert_many((order, {"total": 1}) for order in orders)
        for step in STEPS:
            kill_worker(step, 2, variables)
        finish_worker(store, "invoicing", variables)
        found = connection.execute('SELECT "order" FROM invoices ORDER BY id').fetchall()
        store.drop_consumer("invoicing")
    assert [order for (order,) in found] == orders
