"""What a role can't make streams believe of a collection with partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.security.conftest import SharedDatabase


def test_only_a_role_that_may_truncate_the_collection_can_make_streams_believe_it(db: SharedDatabase) -> None:
    """The owner's triggers know a partition that is truncated alone by a setting, which any role can set."""
    owner, writer = db.connect(), db.connect("writer")
    owner.execute("SELECT pgdoc.create_collection('docs', 'spread', 67108864, 2)")
    found = owner.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'docs.spread'::regclass")
    part = found.fetchall()[0][0]
    owner.execute(f"GRANT TRUNCATE ON {part} TO {db.roles['writer']}".encode())
    writer.execute("SELECT set_config('pgdoc.truncating', 'docs.spread'::regclass::oid::text, false)")
    with pytest.raises(psycopg.Error, match="can't be truncated by itself"):
        writer.execute(f"TRUNCATE {part}".encode())
    owner.execute(f"GRANT TRUNCATE ON docs.spread TO {db.roles['writer']}".encode())
    writer.execute("TRUNCATE docs.spread")
