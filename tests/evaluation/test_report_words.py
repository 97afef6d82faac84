"""Figures in the report are written as a person writes them."""

from __future__ import annotations

import pytest

from luthier.evaluation.report_words import chance, duration, figure, signed, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (85.0, "85"),
        (3.2, "3.20"),
        (999.6, "1,000"),
        (1234567.0, "1,234,567"),
        (0.00123, "0.00123"),
        (2e-4, "2e-4"),
        (-0.5, "−0.500"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (1e12, "1e12"),
    ],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


def test_an_interval_shares_its_decimals() -> None:
    assert signed(0.7, -0.8, 2.1) == ["+0.70", "−0.80", "+2.10"]
    assert signed(None, None, None) == ["–", "–", "–"]
    assert signed(0.0) == ["0"]
    assert signed(2e-5, -1e-5) == ["+2e-5", "−1e-5"]


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "–"),
        (1.0, "p = 1.00"),
        (0.0499, "p = 0.050"),
        (0.0386, "p = 0.039"),
        (9.999e-5, "p = 0.0001"),
        (1e-9, "p < 0.0001"),
    ],
)
def test_chances(p: float | None, text: str) -> None:
    assert chance(p) == text


def test_time_and_memory() -> None:
    assert [duration(s) for s in (None, 0.5, 48, 192, 7500)] == [
        "–",
        "0.500 s",
        "48 s",
        "3 min 12 s",
        "2 h 5 min",
    ]
    assert [size(b) for b in (None, 12, 6e8, 1.25e10)] == ["–", "12 bytes", "600 MB", "12.5 GB"]
