"""The findings and the advice of `dqecir doctor`."""

import pytest

from dqecir.search import health
from dqecir.search.health import examine
from dqecir.search.retriever import ComposedRetriever


@pytest.fixture
def index(model_folder, garments_folder, tmp_path):
    ComposedRetriever.from_pretrained(model_folder).build_index(
        garments_folder, tmp_path / "index", quiet=True
    )
    return tmp_path / "index"


def test_a_sound_installation_needs_no_advice(dqecir, index, model_folder):
    code, out, _ = dqecir("doctor", "--index", index, "--model", model_folder)
    assert code == 0
    for said in ("dqecir: ", "torch ", "threads: ", "device: cpu", "memory: ", "fingerprint", "240 items"):
        assert said in out
    assert "200 of 200" in out and "→" not in out


def test_what_is_wrong_comes_with_advice(dqecir, index, model_folder, tmp_path, monkeypatch):
    code, out, _ = dqecir("doctor", "--index", index)
    assert code == 1 and "name its model with --model" in out  # the shipped model did not build it
    code, out, _ = dqecir("doctor", "--index", tmp_path / "none", "--model", model_folder)
    assert code == 1 and "index" in out and "manifest.json" in out

    (tokens,) = index.rglob("tokens.npy")
    data = bytearray(tokens.read_bytes())
    data[-1] ^= 1
    tokens.write_bytes(data)
    code, out, _ = dqecir("doctor", "--index", index, "--model", model_folder)
    assert code == 1 and "damaged" in out

    monkeypatch.setenv("DQECIR_DEVICE", "tpu")
    code, out, _ = dqecir("doctor", "--model", model_folder)
    assert code == 1 and "unset DQECIR_DEVICE" in out


def test_pictures_that_moved_and_little_memory_are_said(index, model_folder, garments_folder, monkeypatch):
    (index / "pictures.json").unlink()
    monkeypatch.setattr(health, "memory_bytes", lambda: (1.0, 2.0))
    found = {one.name: one for one in examine(index, model_folder)}
    assert found["pictures"].value.startswith("0 of 200") and "reroot" in found["pictures"].advice
    assert "larger machine" in found["room"].advice
    assert not any(one.is_fatal for one in found.values())


def test_more_threads_than_cores_are_said(monkeypatch):
    monkeypatch.setattr(health.torch, "get_num_threads", lambda: 10_000)
    [threads] = [one for one in examine() if one.name == "threads"]
    assert "OMP_NUM_THREADS=" in threads.advice
