"""``/readyz`` tells a balancer whether the index answers, without waiting for anything else."""

import threading

import pytest

from dqecir.errors import EngineError
from dqecir.service import readiness
from tests.conftest import PATIENCE
from tests.service.conftest import refused


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(readiness, "SECONDS", 0.05)


@pytest.mark.parametrize("error", [EngineError("no server at db:5432"), OSError("gone"), RuntimeError("?")])
def test_it_is_ready_again_as_soon_as_its_index_is_back(client, monkeypatch, error):
    index = client.app.state.service.main.index

    def fail():
        raise error

    until_ready(client)
    with monkeypatch.context() as away:
        away.setattr(index, "refresh", fail)
        response = client.get("/readyz")
        said = refused(response, 503)
        assert "index" in said and str(error) not in said
        assert response.headers["retry-after"] == "5"
        assert client.get("/healthz").status_code == 200
    until_ready(client)


@pytest.mark.usefixtures("short")
def test_it_waits_neither_for_an_index_that_hangs_nor_for_the_model(client, monkeypatch):
    service = client.app.state.service
    goes_on, asked = threading.Event(), []

    def hang(*_):
        asked.append(threading.current_thread().name)
        assert goes_on.wait(PATIENCE)
        return [None]

    searched = threading.Thread(target=lambda: client.portal.call(service.worker.ask, hang, None))
    searched.start()
    try:
        with monkeypatch.context() as hanging:
            hanging.setattr(service.main.index, "refresh", hang)
            for _ in range(readiness.MOST + 3):
                assert "does not answer within" in refused(client.get("/readyz"), 503)
            assert asked.count("readiness") == readiness.MOST
        assert not goes_on.is_set()
    finally:
        goes_on.set()
        searched.join(PATIENCE)
    assert "model" in asked
    until_ready(client)


@pytest.mark.usefixtures("short")
def test_one_question_that_is_never_answered_does_not_keep_it_away(client, monkeypatch):
    never = threading.Event()
    with monkeypatch.context() as hanging:
        hanging.setattr(client.app.state.service.main.index, "refresh", never.wait)
        refused(client.get("/readyz"), 503)
    until_ready(client)
    never.set()


@pytest.mark.usefixtures("short")
def test_every_index_is_asked(serving, settings, monkeypatch):
    beside = {"name": "again", "index": settings.index, "model": settings.model}
    with serving(also=[beside]) as client:
        second = client.app.state.service.engines["again"].index
        monkeypatch.setattr(second, "refresh", threading.Event().wait)
        refused(client.get("/readyz"), 503)


def test_the_folder_of_an_index_may_go_and_come_back(client, settings):
    away = settings.index.with_name("away")
    settings.index.rename(away)
    refused(client.get("/readyz"), 503)
    away.rename(settings.index)
    until_ready(client)


def until_ready(client):
    """Ask until it is ready; an answer may be late on a busy machine."""
    for _ in range(200):
        if client.get("/readyz").status_code == 200:
            return
    raise AssertionError("it is not ready again")
