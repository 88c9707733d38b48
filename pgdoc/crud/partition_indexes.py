"""The SQL of an index of a collection with partitions, which PostgreSQL can't build CONCURRENTLY as one.

Each partition gets its own index, and a short transaction joins them to one of the collection. No query uses it before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgdoc.errors import InvalidInput
from pgdoc.model.names import quoted
from pgdoc.query.indexes.definition import relation_name
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc.query.indexes.definition import IndexPart, IndexPlan

__all__ = ["JoinedBuild", "index_statement", "joined_build", "refuse_unique"]


class JoinedBuild(NamedTuple):
    """How one part of an index is built.

    Attributes:
        relation: the name of the index of the collection.
        builds: the names of the indexes of the partitions, with what builds each.
        joining: the statements that make the partitions' indexes parts of that of the collection, in one transaction.
    """

    relation: str
    builds: list[tuple[str, bytes]]
    joining: list[bytes]


def joined_build(  # noqa: PLR0913 (what an index consists of)
    address: tuple[str, str],
    oid: int,
    partitions: Sequence[tuple[int, str]],
    *,
    plan: IndexPlan,
    part: IndexPart,
    body: str,
    comment: str,
) -> JoinedBuild:
    """Return the statements that build one part of an index; `body` and `comment` are SQL."""
    schema, table = address
    relation = relation_name(table, oid, plan.name, part.label)
    whole, joins, builds = quoted(schema, relation), [], []
    for number, name in partitions:
        own = relation_name(name, number, plan.name, part.label)
        place = {"name": f'"{own}"', "table": quoted(schema, name)}
        builds.append((own, index_statement("create", concurrently="CONCURRENTLY", kind=part.kind, body=body, **place)))
        joins.append(index_statement("join", name=whole, part=quoted(schema, own)))
    place = {"name": f'"{relation}"', "table": quoted(schema, table)}
    create = index_statement("create_joined", kind=part.kind, body=body, **place)
    return JoinedBuild(relation, builds, [create, *joins, index_statement("comment", name=whole, comment=comment)])


def refuse_unique(subject: str, paths: Sequence[str]) -> None:
    """Raise the error for a unique index of a collection with partitions: PostgreSQL would look at each alone."""
    raise InvalidInput(
        f"{subject} has partitions, and can't have a unique index on {', '.join(paths)}: PostgreSQL can keep only ids "
        "unique in all of them; make the value the id, or use a collection without partitions"
    )


def index_statement(name: str, /, **clauses: str) -> bytes:
    """Return a block of `indexes.sql`."""
    text = statement("indexes", name)
    return (text.format(**clauses) if clauses else text).encode()
