# Written by .ci/twins.py from pgdoc/_async/live_calls.py: change that file, and run it.
"""The calls that keep figures and copies of a collection or table up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from pgdoc._sync.live_aggregates import live_aggregate
from pgdoc._sync.mirror import mirror_of
from pgdoc.live.aggregates import AggregateKind
from pgdoc.model.type_variables import M
from pgdoc.runtime.primitives import opening
from pgdoc.streams.options import check_watchable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from pgdoc._sync.live_aggregates import LiveAggregate
    from pgdoc._sync.live_sources import LiveSources
    from pgdoc._sync.mirror import Mirror
    from pgdoc._sync.table import Table

__all__ = ["LiveCalls", "LiveStoreCalls"]


class LiveCalls(Generic[M]):
    """The live aggregates and mirrors of a collection, which inherits them."""

    _name: str
    _table: Table[M]
    _live: LiveSources | None

    def live_count(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        by: str | None = None,
    ) -> LiveAggregate[int]:
        """Open a live count of the documents that match, and what changes about it.

        It begins with everything that was committed before the call. Equal figures of a store are computed once.

        Args:
            filter: as for `find`.
            by: a path; the documents are counted for each value at it. Documents without one count for `None`.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `by` is not a path.
            StreamError: this handle belongs to a transaction.
            CollectionNotFound: the collection does not exist, and the store does not create it.
            ReplicationUnavailable: the server or the role is not set up for streams; the message says what to do.
            SlotBlocked: the first slot of the database has to wait for open transactions.
            ReplicaIdentityChanged: the collection's changes have no before images.
        """
        return opening(live_aggregate(self._live, self._name, AggregateKind.COUNT, None, filter, by=by))

    def live_sum(
        self,
        path: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        by: str | None = None,
    ) -> LiveAggregate[Decimal]:
        """Open a live sum of the numbers at a path, and what changes about it.

        The sum is exact. Other values, and the items of arrays, are left out. Without any number, it is 0.

        Args:
            path: a dotted path.
            filter: as for `find`.
            by: as for `live_count`.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `path` or `by` is not a path.
            StreamError: this handle belongs to a transaction.
            PgdocError: as for `live_count`.
        """
        return opening(live_aggregate(self._live, self._name, AggregateKind.SUM, path, filter, by=by))

    def live_average(
        self,
        path: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        by: str | None = None,
    ) -> LiveAggregate[Decimal | None]:
        """Open a live average of the numbers at a path, and what changes about it.

        It is the exact sum divided by how many numbers there are, with 28 digits. Other values, and the items of
        arrays, are left out. Without any number, it is `None`.

        Args:
            path: a dotted path.
            filter: as for `find`.
            by: as for `live_count`.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `path` or `by` is not a path.
            StreamError: this handle belongs to a transaction.
            PgdocError: as for `live_count`.
        """
        return opening(live_aggregate(self._live, self._name, AggregateKind.AVERAGE, path, filter, by=by))

    def mirror(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> Mirror[M]:
        """Open a mirror: a read-only mapping of the documents that match, by id, which follows the collection.

        It begins with everything that was committed before the call, and holds all documents that match in memory.
        Equal mirrors of a store share their documents.

        Args:
            filter: as for `find`.

        Raises:
            InvalidFilter: `filter` is not a filter.
            StreamError: this handle belongs to a transaction.
            PgdocError: as for `live_count`.
        """
        return opening(mirror_of(self._live, self._name, filter, self._table.form.reader))


class LiveStoreCalls:
    """The same for a collection or a watched table, by its name; the store inherits them."""

    _live: LiveSources

    def live_count(
        self,
        name: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        by: str | None = None,
    ) -> LiveAggregate[int]:
        """Open a live count on a collection, or on a watched table; see `Collection.live_count`.

        Args:
            name: that of the collection, or of the table as `"schema.table"` (see `add_table`).
            filter: as for `live`.
            by: a path; the documents are counted for each value at it.

        Raises:
            TableRefused: the table is not watched.
            PgdocError: as for `Collection.live_count`.
        """
        return opening(live_aggregate(self._live, check_watchable(name), AggregateKind.COUNT, None, filter, by=by))

    def live_sum(
        self,
        name: str,
        path: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        by: str | None = None,
    ) -> LiveAggregate[Decimal]:
        """Open a live sum on a collection, or on a watched table; see `Collection.live_sum`.

        Args:
            name: as for `live_count`.
            path: a dotted path.
            filter: as for `live`.
            by: as for `live_count`.

        Raises:
            TableRefused: the table is not watched.
            PgdocError: as for `Collection.live_sum`.
        """
        return opening(live_aggregate(self._live, check_watchable(name), AggregateKind.SUM, path, filter, by=by))

    def live_average(
        self,
        name: str,
        path: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        by: str | None = None,
    ) -> LiveAggregate[Decimal | None]:
        """Open a live average on a collection, or on a watched table; see `Collection.live_average`.

        Args:
            name: as for `live_count`.
            path: a dotted path.
            filter: as for `live`.
            by: as for `live_count`.

        Raises:
            TableRefused: the table is not watched.
            PgdocError: as for `Collection.live_average`.
        """
        return opening(live_aggregate(self._live, check_watchable(name), AggregateKind.AVERAGE, path, filter, by=by))

    def mirror(
        self,
        name: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> Mirror:
        """Open a mirror of a collection or of a watched table; see `Collection.mirror`.

        Args:
            name: as for `live_count`.
            filter: as for `live`.

        Raises:
            TableRefused: the table is not watched.
            PgdocError: as for `Collection.mirror`.
        """
        return opening(mirror_of(self._live, check_watchable(name), filter))
