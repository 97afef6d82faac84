"""The collector is as it was once work without it is over, however that ended."""

from __future__ import annotations

import gc

import pytest

from luthier.core.garbage import set_aside, uncollected


def broken() -> None:
    raise ValueError("stop")


def test_the_collector_comes_back() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="stop"), uncollected():
        broken()
    assert gc.isenabled()


def test_one_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_set_aside_is_looked_at_again() -> None:
    with set_aside():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    with pytest.raises(ValueError, match="stop"), set_aside():
        broken()
    assert gc.get_freeze_count() == 0
