"""An exported index contains ids, vectors and payloads as they are stored, and is complete or missing."""

import json
import sys

import numpy as np
import pytest
import torch

from dqecir.errors import EngineError
from dqecir.index import parquet
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.parquet import export_parquet
from dqecir.index.server import ServerIndex

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'dqecir[export]'")

from pyarrow.parquet import ParquetFile

PAYLOADS = [{"title": "Straße İ", "price": 40.0}, {}, {"size": ["S", "M"], "path": "a/b.jpg"}]


def built(folder, tokens: int, count: int = 3, engine=ExactIndex):
    header = IndexHeader(
        model="target:1", tokens=tokens, size=4, score_rule="dot" if tokens == 1 else "max_t"
    )
    vectors = torch.randn(count, tokens, 4, generator=torch.Generator().manual_seed(0))
    ids = [f"ä/{number}.jpg" for number in range(count)]
    payloads = [PAYLOADS[number % 3] for number in range(count)]
    return engine.build(folder, header, iter([ItemBatch(ids, vectors, payloads)])), vectors.half().float()


@pytest.mark.parametrize("engine", [ExactIndex, ServerIndex])
def test_an_export_holds_what_is_stored(tmp_path, monkeypatch, engine):
    monkeypatch.setenv("DQECIR_QDRANT_URL", ":memory:")
    index, vectors = built(tmp_path / "index", 1, engine=engine)
    index.delete(["ä/1.jpg"])
    assert export_parquet(index, tmp_path / "out" / "items.parquet") == 2
    file = ParquetFile(tmp_path / "out" / "items.parquet")
    assert file.schema_arrow.metadata == {b"target": b"target:1", b"score_rule": b"dot"}
    rows = file.read().to_pylist()
    assert [row["id"] for row in rows] == ["ä/0.jpg", "ä/2.jpg"]
    assert np.array_equal([row["vector"] for row in rows], vectors[[0, 2], 0].numpy())
    assert [json.loads(row["payload"]) for row in rows] == [PAYLOADS[0], PAYLOADS[2]]


def test_items_of_several_vectors_have_all_of_them(tmp_path):
    index, vectors = built(tmp_path / "index", 2)
    export_parquet(index, tmp_path / "items.parquet")
    rows = ParquetFile(tmp_path / "items.parquet").read().to_pylist()
    assert np.array_equal([row["vectors"] for row in rows], vectors.numpy())


def test_a_row_group_is_in_memory_at_a_time(tmp_path, monkeypatch):
    index, _ = built(tmp_path / "index", 1, count=2500)
    monkeypatch.setattr(parquet, "GROUP", 4 * 1500)
    assert export_parquet(index, tmp_path / "items.parquet") == 2500
    file = ParquetFile(tmp_path / "items.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [2048, 452]
    assert file.read()["id"].to_pylist() == index.ids()


def test_an_export_that_fails_leaves_the_old_file(tmp_path):
    index, _ = built(tmp_path / "index", 1)
    index.add(ItemBatch(["\udc80.jpg"], torch.ones(1, 1, 4), [{}]))
    (tmp_path / "items.parquet").write_text("the old one")
    with pytest.raises(EngineError, match=r"cannot hold the id '\\udc80.jpg'.*rename the picture"):
        export_parquet(index, tmp_path / "items.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "items.parquet"]
    assert (tmp_path / "items.parquet").read_text() == "the old one"


def test_the_command_writes_a_file_and_says_what_it_lacks(dqecir, tmp_path, monkeypatch):
    built(tmp_path / "index", 1)
    export = ("index", "export", "--index", tmp_path / "index", "--out", tmp_path / "items.parquet")
    code, out, _ = dqecir(*export)
    assert (code, out.startswith("3 items in ")) == (0, True)
    (tmp_path / "items.parquet").unlink()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, out, err = dqecir(*export)
    assert (code, out) == (1, "")
    assert err == "dqecir: an export needs pyarrow, which is not installed: pip install 'dqecir[export]'"
    assert not (tmp_path / "items.parquet").exists()
