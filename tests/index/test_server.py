"""A Qdrant server: the contract on the client that plays server, and on a real one where there is one."""

import os

import pytest

pytest.importorskip("qdrant_client")

from dqecir.index.server import IN_MEMORY, URL, ServerIndex, ServerStore
from tests.index.contract import EngineContract

REAL = os.environ.get(URL)


class TestServerInTheClient(EngineContract):
    engine = ServerIndex

    @pytest.fixture(autouse=True)
    def address(self, monkeypatch):
        monkeypatch.setenv(URL, IN_MEMORY)


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
