"""Qdrant Edge: the contract, its owner, and its process."""

import pytest

pytest.importorskip("qdrant_edge")

from dqecir.index.edge import EdgeIndex
from tests.index.contract import EngineContract


class TestEdge(EngineContract):
    engine = EdgeIndex
