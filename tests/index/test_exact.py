"""The exact engine: the contract, and damaged files."""

import gc
import io
import json
import threading
import weakref

import numpy as np
import pytest
import torch

from dqecir.errors import EngineError
from dqecir.index import exact, generation, segments
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.segments import write_head
from dqecir.methods.scoring import RULES
from tests.conftest import PATIENCE
from tests.index.contract import HEADER, EngineContract, batches

FIRST = "s00000001"


class TestExact(EngineContract):
    engine = ExactIndex
    rules = RULES
    equals = 101


@pytest.mark.parametrize(
    "name",
    ["manifest.json", f"{FIRST}/items.jsonl", f"{FIRST}/lookup.safetensors", f"{FIRST}/tokens.npy"],
)
def test_half_an_index_is_refused(tmp_path, name):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    (tmp_path / "i" / name).unlink()
    with pytest.raises(EngineError, match="build"):
        ExactIndex.open(tmp_path / "i")


def test_cut_off_tokens_are_refused(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    path = tmp_path / "i" / FIRST / "tokens.npy"
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
    manifest.write_text(json.dumps(json.loads(text) | {"format": 1}))
    with pytest.raises(EngineError, match="not an exact index of this version"):
        ExactIndex.open(tmp_path / "i")
    manifest.write_text(json.dumps({key: json.loads(text)[key] for key in ("format", "engine")}))
    with pytest.raises(EngineError, match="Build the index again"):
        ExactIndex.open(tmp_path / "i")
    manifest.write_bytes(b"\xff\xfe")
    with pytest.raises(EngineError, match="damaged"):
        ExactIndex.open(tmp_path / "i")


def test_items_and_tokens_of_another_index_are_refused(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    ExactIndex.build(tmp_path / "j", HEADER, batches(prefix="photo"))
    for name in ("items.jsonl", "lookup.safetensors"):
        path = tmp_path / "i" / FIRST / name
        own = path.read_bytes()
        path.write_bytes((tmp_path / "j" / FIRST / name).read_bytes())
        with pytest.raises(EngineError, match="does not fit the index's manifest"):
            ExactIndex.open(tmp_path / "i")
        path.write_bytes(own)
    path = tmp_path / "j" / FIRST / "tokens.npy"
    tokens = np.load(path)
    np.save(path, tokens.reshape(5, 6, 8))
    with pytest.raises(EngineError, match="does not fit the index's manifest"):
        ExactIndex.open(tmp_path / "j")
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(EngineError, match="damaged"):
        ExactIndex.open(tmp_path / "j")


def test_one_changed_byte_is_found_by_verifying(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    ExactIndex.verify(tmp_path / "i")
    path = tmp_path / "i" / FIRST / "tokens.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineError, match="damaged"):
        ExactIndex.verify(tmp_path / "i")


def test_any_program_can_read_the_tokens(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    tokens = torch.cat([batch.tokens for batch in batches()])
    assert np.array_equal(np.load(tmp_path / "i" / FIRST / "tokens.npy"), tokens.half().numpy())
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == [
        "manifest.json",
        FIRST,
    ]


def test_the_head_of_the_tokens_is_as_long_for_any_number_of_items():
    lengths = set()
    for items in (0, 1, 10**9):
        file = io.BytesIO()
        write_head(file, items, HEADER)
        lengths.add(len(file.getvalue()))
    assert len(lengths) == 1


def test_a_rule_for_single_vectors_has_single_tokens():
    with pytest.raises(ValueError, match="not 3 tokens per item"):
        IndexHeader(model="m", tokens=3, size=8, score_rule="dot")


def test_segments_stay_few_and_the_dead_are_cleared(tmp_path):
    index = ExactIndex.build(tmp_path / "i", HEADER, batches(100))
    for number in range(24):
        index.add(ItemBatch([f"new{number}"], torch.ones(1, 3, 8), [{}]))
        assert index.info()["segments"] <= 7
    index.delete([f"item{number}" for number in range(95)])
    facts = index.info()
    assert (facts["items"], facts["dead items"]) == (29, 0)
    on_disk = [path for path in (tmp_path / "i").iterdir() if path.is_dir()]
    assert len(on_disk) == facts["segments"]


def test_marks_of_the_dead_that_do_not_belong_are_refused(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches()).delete(["item1"])
    [path] = (tmp_path / "i" / FIRST).glob("dead-*")
    path.write_bytes(bytes(2))
    with pytest.raises(EngineError, match="does not fit the index's manifest"):
        ExactIndex.open(tmp_path / "i")


def test_an_opener_whose_files_a_writer_has_removed_opens_the_newer_generation(tmp_path, monkeypatch):
    index = ExactIndex.build(tmp_path / "i", HEADER, batches())
    manifests = [segments.read_manifest(tmp_path / "i")]
    index.delete([f"item{number}" for number in range(8)])
    assert not (tmp_path / "i" / FIRST).exists()
    read = segments.read_manifest
    monkeypatch.setattr(
        generation, "read_manifest", lambda folder: manifests.pop() if manifests else read(folder)
    )
    assert len(ExactIndex.open(tmp_path / "i")) == 2


def test_a_search_is_never_the_last_to_hold_a_large_file_that_was_replaced(tmp_path, monkeypatch):
    lingering, gone = [], []

    class Lingering(threading.Timer):
        def start(self) -> None:
            lingering.append(self)

    monkeypatch.setattr(exact, "LARGE", 0)
    monkeypatch.setattr(exact, "LINGERS", 0)
    monkeypatch.setattr(exact, "Timer", Lingering)
    open_segment = generation.open_segment

    def watched(*arguments):
        segment = open_segment(*arguments)
        weakref.finalize(segment.items, lambda: gone.append(threading.current_thread()))
        return segment

    with monkeypatch.context() as patch:
        patch.setattr(generation, "open_segment", watched)
        index = ExactIndex.build(tmp_path / "i", HEADER, batches())
    ids = [item_id for item_id, _ in index.entries()]
    index.delete(ids[: len(ids) // 2 + 1])
    gc.collect()
    assert not (tmp_path / "i" / FIRST).exists()
    assert not gone
    [last] = lingering
    super(Lingering, last).start()
    last.join(PATIENCE)
    assert gone == [last]
    assert len(index.search(torch.ones(1, 1, HEADER.size), len(ids))[0]) == len(index)
