"""Charts: every value lies where its axis says."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from luthier.evaluation.report_plots import Scale, Series, chart, nice_ticks, smooth


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", path)]


def test_nothing_to_draw_is_no_chart() -> None:
    assert chart("loss", "Loss", [Series("Training", "train", [])]) is None


def test_points_lie_between_the_ticks_they_lie_between() -> None:
    points = [(0.0, 1.0), (50.0, 3.0), (100.0, 2.0)]
    made = chart("loss", "Loss", [Series("Training", "train", points)])
    assert made is not None
    (view,) = made.views
    ticks = {float(tick.text): 10 * tick.at for tick in view.y_ticks}
    for (_, value), (_, y) in zip(points, places(view.lines[0].path), strict=True):
        assert y == pytest.approx(ticks[value], abs=0.1)
    steps = {float(tick.text): 10 * tick.at for tick in made.x_ticks}
    assert steps[0] == 0
    assert steps[100] == 1000


def test_a_wide_range_offers_a_logarithmic_axis_first() -> None:
    wide = chart("loss", "Loss", [Series("Training", "train", [(1, 10.0), (2, 0.1)])])
    narrow = chart("loss", "Loss", [Series("Training", "train", [(1, 10.0), (2, 9.0)])])
    negative = chart("loss", "Loss", [Series("Training", "train", [(1, 10.0), (2, -0.1)])])
    assert wide is not None
    assert narrow is not None
    assert negative is not None
    assert [view.name for view in wide.views] == ["log", "linear"]
    assert [view.name for view in narrow.views] == ["linear"]
    assert [view.name for view in negative.views] == ["linear"]
    texts = [tick.text for tick in wide.views[0].y_ticks]
    places_ = [tick.at for tick in wide.views[0].y_ticks]
    assert {"0.1", "1", "10"} <= set(texts)
    middle = places_[texts.index("1")]
    assert middle == pytest.approx((places_[texts.index("0.1")] + places_[texts.index("10")]) / 2)


@pytest.mark.parametrize("points", [[(1.0, 0.5)], [(1.0, 0.0)], [(1.0, 2.0), (2.0, 2.0)]])
def test_one_point_or_a_flat_line_can_be_drawn(points: list[tuple[float, float]]) -> None:
    made = chart("norm", "Norm", [Series("Norm", "train", points)], zero=True)
    assert made is not None
    for view in made.views:
        assert all(0 <= y <= 1000 for line in view.lines for _, y in places(line.path))
        assert len(view.y_ticks) >= 2


def test_bands_cover_the_axis_and_keep_every_marked_point() -> None:
    training = Series("Training", "train", [(float(n), 1 + 1 / n) for n in range(1, 2001)])
    validation = Series("Validation", "validation", [(777.0, 1.5), (1999.0, 1.2)], marks=True)
    made = chart("loss", "Loss", [training, validation])
    assert made is not None
    bands = made.views[0].bands
    assert bands[0].left == 0
    assert bands[-1].left + bands[-1].width == pytest.approx(100, abs=0.05)
    for one, following in pairwise(bands):
        assert one.left + one.width == pytest.approx(following.left, abs=0.05)
    said = [dot.text for band in bands for dot in band.dots]
    assert "Validation 1.50" in said
    assert "Validation 1.20" in said
    assert len(bands) <= 165


def test_thinning_keeps_the_mean() -> None:
    points = [(float(n), float(n % 2)) for n in range(1000)]
    made = chart("loss", "Loss", [Series("Training", "train", points)])
    assert made is not None
    assert "mean of 3" in made.note
    drawn = places(made.views[0].lines[0].path)
    assert len(drawn) == 334
    # 0 1 0 and 1 0 1: means of a third and of two thirds, never an end of the range.
    third, two_thirds = drawn[0][1], drawn[1][1]
    assert 1000 > third > two_thirds > 0
    assert drawn[2][1] == third


def test_smoothing_does_not_lag() -> None:
    line = [10.0 - 0.1 * n for n in range(100)]
    assert smooth(line) == pytest.approx(line)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.61, 0.68), (-3, 7), (0, 2e-4), (5e4, 9e6)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 3 <= len(ticks) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 * high for tick in ticks)


def test_scales() -> None:
    assert Scale(0, 10).at(5) == 0.5
    assert Scale(0.01, 100, log=True).at(1) == pytest.approx(0.5)
