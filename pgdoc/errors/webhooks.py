"""The error of a webhook that is gone."""

from __future__ import annotations

from pgdoc.errors.base import PgdocError


class WebhookGone(PgdocError):  # noqa: N818
    """The receiver of a webhook answered 410 Gone: it wants no more events, so the relay has ended.

    The event that it refused comes first when the relay runs again.
    """
