"""The update law over many more cases, which are the same in each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings

from tests.integration.test_update_laws import (
    connection,
    documents_with_updates,
    test_the_server_stores_what_python_computes,
)

if TYPE_CHECKING:
    import psycopg

__all__ = ["connection"]

law: Any = test_the_server_stores_what_python_computes
del test_the_server_stores_what_python_computes  # otherwise pytest collects it here too


@settings(
    max_examples=20_000,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(documents_with_updates())
def test_twenty_thousand_updates(connection: psycopg.Connection, drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    law.hypothesis.inner_test(connection, drawn)
