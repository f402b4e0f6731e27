"""Garbage is collected again after loading, and threads sleep while they wait."""

import gc
import os
import sys

import pytest

from dqecir.cli import main
from dqecir.io.starting import loading


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


@pytest.mark.parametrize(("chosen", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_a_command_has_its_threads_sleep_unless_told_otherwise(monkeypatch, chosen, used):
    monkeypatch.setenv("OMP_WAIT_POLICY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(sys, "argv", ["dqecir", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ["OMP_WAIT_POLICY"] == used
