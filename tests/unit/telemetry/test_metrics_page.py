from __future__ import annotations

from pathlib import Path

import pytest

from pgdoc.telemetry.catalogue import METRICS, Half, Metric

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def row_of(metric: Metric) -> str:
    """Return how the page shows a metric."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_page_describes_each_metric_as_the_table_does(metric: Metric):
    assert row_of(metric) in PAGE.read_text().splitlines()


def test_the_page_has_no_other_metrics_and_the_order_of_the_table():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `pgdoc_")]
    assert rows == [row_of(metric) for metric in METRICS]


def test_metrics_of_processes_come_first():
    halves = [metric.half for metric in METRICS]
    assert halves == sorted(halves, key=lambda half: half is Half.SERVER)
