"""How p values are written: no false precision, and the text never contradicts the verdict."""

import numpy as np
import pytest

from crossfold.reports.stats.formatting import DASH, p_text
from crossfold.reports.stats.hypothesis_tests import ALPHA


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, DASH),
        (0.0, "< 0.01"),
        (0.00999, "< 0.01"),
        (0.01, "0.01"),
        (0.0449, "0.04"),
        (0.0499, "< 0.05"),
        (0.05, "0.05"),
        (0.0501, "0.05"),
        (0.994, "0.99"),
        (0.996, "1"),
        (1.0, "1"),
    ],
)
def test_a_p_value_is_written_without_false_precision(p, text):
    assert p_text(p) == text


def test_a_reader_of_the_text_of_p_comes_to_the_verdict():
    for p in np.linspace(0, 1, 20_001):
        text = p_text(float(p))
        bound = text.startswith("<")
        below = float(text.removeprefix("< ")) <= ALPHA if bound else float(text) < ALPHA
        assert below == (p < ALPHA), (p, text)
