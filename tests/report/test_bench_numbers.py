import math

import pytest

from lacunar.report.bench_numbers import interval, p_value, percent, points, spread

NAN = math.nan


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (percent(0.8765), "87.6"), (percent(1), "100.0"), (percent(NAN), "-"),
        (percent(-0.0003), "0.0"), (percent(-0.0006), "-0.1"),
        (spread(0.5, 0.0123), "50.0 ± 1.2"), (spread(0.5, NAN), "50.0"), (spread(NAN, 0.1), "-"),
        (points(0.0349), "+3.5"), (points(-0.0349), "-3.5"), (points(NAN), "-"),
        (points(0.0004), "0.0"), (points(-0.0004), "0.0"), (points(-0.0006), "-0.1"),
        (interval(-0.02, 0.0001), "-2.0 to 0.0"), (interval(NAN, NAN), "-"),
        (p_value(0.0004), "< 0.001"), (p_value(0.04), "0.040"), (p_value(NAN), "-"),
    ],
)  # fmt: skip
def test_numbers_as_pages_write_them(said, expected):
    assert said == expected
