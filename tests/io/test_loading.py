"""Garbage is collected again after loading, but not among what was loaded."""

import gc

import pytest

from dqecir.io.loading import loading


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.unfreeze()


def test_what_is_loaded_is_not_looked_through_again():
    with loading():
        assert not gc.isenabled()
        kept = [[]]
    assert gc.isenabled()
    assert not any(each is kept for each in gc.get_objects())
    later = [[]]
    assert any(each is later for each in gc.get_objects())


def test_an_error_while_loading_leaves_the_collector_on():
    with pytest.raises(ValueError, match="broken"), loading():
        raise ValueError("broken")
    assert gc.isenabled()
