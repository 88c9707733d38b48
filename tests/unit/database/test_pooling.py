"""Whether a connection leads to a session of its own."""

from __future__ import annotations

import pytest

from pgdoc.database.pooling import is_own_session


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((42, 0.01), True),
        ((43, 0.01), False),  # the key for canceling is the pooler's own
        ((42, 60.0), False),  # by chance the pid of a session that the pooler had
        ((42, None), False),  # a role that may not see it
        (None, False),
    ],
)
def test_only_the_session_that_began_with_the_connection_is_its_own(found, expected):
    assert is_own_session(42, 0.02, found) is expected
