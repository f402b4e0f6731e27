"""The exact engine: the contract, and what happens to damaged files."""

import json

import pytest

from dqecir.index.engine import EngineError
from dqecir.index.exact import ExactIndex
from tests.index.contract import HEADER, EngineContract, batches


class TestExact(EngineContract):
    engine = ExactIndex


@pytest.mark.parametrize("name", ["manifest.json", "items.json", "tokens.npy"])
def test_half_an_index_is_refused(tmp_path, name):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    (tmp_path / "i" / name).unlink()
    with pytest.raises(EngineError, match="build"):
        ExactIndex.open(tmp_path / "i")


def test_cut_off_tokens_are_refused(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    path = tmp_path / "i" / "tokens.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(EngineError, match="cut off"):
        ExactIndex.open(tmp_path / "i")


def test_damaged_text_and_foreign_formats_are_refused(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    manifest = tmp_path / "i" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[:20])
    with pytest.raises(EngineError, match="damaged"):
        ExactIndex.open(tmp_path / "i")
    manifest.write_text(json.dumps(json.loads(text) | {"format": 9}))
    with pytest.raises(EngineError, match="not an exact index of this version"):
        ExactIndex.open(tmp_path / "i")
