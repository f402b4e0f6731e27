"""A Qdrant server: the contract on the client that plays server, and on a real one where there is one."""

import os
from contextlib import contextmanager
from threading import RLock

import pytest

pytest.importorskip("qdrant_client")

from dqecir.index.server import IN_MEMORY, URL, ServerIndex, ServerStore
from tests.index.contract import EngineContract

REAL = os.environ.get(URL)


class TestServerInTheClient(EngineContract):
    engine = ServerIndex

    @pytest.fixture(autouse=True)
    def address(self, monkeypatch):
        """A client's own memory, asked by one thread at a time: unlike a server it is not made for more."""
        monkeypatch.setenv(URL, IN_MEMORY)
        one, connected = RLock(), ServerStore._client

        @contextmanager
        def alone(store):
            with one, connected(store) as client:
                yield client

        monkeypatch.setattr(ServerStore, "_client", alone)


@pytest.mark.skipif(REAL is None, reason=f"no Qdrant server: set {URL} to have it tested")
class TestServer(EngineContract):
    engine = ServerIndex

    @pytest.fixture(autouse=True)
    def clean(self):
        """Nothing stays on the server."""
        before = self.collections()
        yield
        for name in self.collections() - before:
            ServerStore(REAL, name).drop()

    @staticmethod
    def collections() -> set[str]:
        with ServerStore(REAL, "")._client() as client:
            return {collection.name for collection in client.get_collections().collections}
