"""A stranger can read the scale of each chart, and tell its lines apart."""

from __future__ import annotations

import re

import pytest

from bench import charts
from bench.figures import compare


@pytest.mark.parametrize("highest", [8.5, 20, 99, 150, 5_000])
@pytest.mark.parametrize("lowest", [0.15, 0.2, 1.1, 3])
def test_a_logarithmic_axis_has_more_than_one_label(lowest, highest, tmp_path):
    figures = compare("own", {"ours": [lowest], "reference": [lowest]}, "reference", "ms", x=1)
    figures += compare("own", {"ours": [lowest * highest], "reference": [lowest]}, "reference", "ms", x=10)
    (path,) = charts.draw(figures, tmp_path)
    axis = path.read_text(encoding="utf-8").partition('id="matplotlib.axis_2"')[2].partition('id="patch_3"')[0]
    labels = re.findall(r"<text[^>]*>([\d.,]+)</text>", axis)
    assert len(labels) >= 2


def test_two_references_look_different(tmp_path):
    figures = []
    for x in (1, 10):
        figures += compare("streams", {"tasks": [2.0], "futures": [1.0]}, "futures", "ms", x=x)
        figures += compare("streams", {"threads": [4.0], "bare": [3.0]}, "bare", "ms", x=x)
    (path,) = charts.draw(figures, tmp_path)
    assert len(set(re.findall(r"stroke-dasharray: ([\d. ,]+)", path.read_text(encoding="utf-8")))) == 2
