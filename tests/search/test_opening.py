"""Which model opens which index: everything that changes target embeddings must be equal, nothing else."""

import shutil
from pathlib import Path

import pytest
import torch

from dqecir import ComposedRetriever
from dqecir.errors import EngineError
from dqecir.index.engines import open_index
from dqecir.language.reading import RuleReader
from dqecir.model import fingerprints
from dqecir.search.audit import audit
from dqecir.search.engine import SearchEngine
from tests.conftest import MODEL_OF_0_1_0, tiny_model

OF_0_1_0 = Path(__file__).parents[1] / "index" / "of_0_1_0"
"""An exact index of two drawn garments that version 0.1.0 built with its shipped model, and one picture."""


@pytest.fixture(scope="module")
def built(tmp_path_factory, garments_folder) -> Path:
    """Return an index of the tiny model."""
    folder = tmp_path_factory.mktemp("opening") / "index"
    ComposedRetriever(tiny_model().with_method("dqe_values", {})).build_index(
        sorted((garments_folder / "images").iterdir())[:12], folder, quiet=True
    )
    return folder


def ways_to_open(model, folder):
    """Return functions that open an index as the Python API, the service and the audit do."""
    yield lambda: ComposedRetriever(model).open_index(folder)
    yield lambda: SearchEngine(model, open_index(folder))
    yield lambda: audit(open_index(folder), model, count=2, numbers=(2,))


def test_an_index_of_0_1_0_opens_with_its_model_and_takes_items(tmp_path):
    folder = shutil.copytree(OF_0_1_0 / "index", tmp_path / "index")
    picture = OF_0_1_0 / "000000.jpg"
    retriever = ComposedRetriever.from_pretrained(MODEL_OF_0_1_0).open_index(folder)
    [hit] = retriever.search(picture, k=1).hits
    assert hit.id == "images/000000.jpg"
    assert hit.payload["color"] == "yellow"
    stored = retriever.index.tokens([hit.id]).float()
    torch.testing.assert_close(retriever.encode_images([picture]), stored, atol=2e-3, rtol=0)
    retriever.add_pictures([picture], quiet=True)
    assert len(retriever.open_index(folder).index) == 3
    retriever.build_index([picture], folder, quiet=True)
    assert retriever.index.header.model == retriever.model.target_fingerprint


def test_an_index_of_0_1_0_is_refused_to_a_model_that_composes_otherwise():
    model = ComposedRetriever.from_pretrained(MODEL_OF_0_1_0).model
    with torch.no_grad():
        model.method.asks_bias += 1
    with pytest.raises(EngineError, match=r"another model \(998e8cbc9e5f47b9, and this is .*name that model"):
        ComposedRetriever(model).open_index(OF_0_1_0 / "index")


def test_an_index_of_the_model_of_0_1_0_is_refused_to_the_shipped_one():
    with pytest.raises(EngineError, match=r"another model .*build the index again"):
        ComposedRetriever.from_pretrained().open_index(OF_0_1_0 / "index")


def test_a_changed_rule_opens_an_old_index(built, monkeypatch):
    before = tiny_model().with_method("dqe_values", {})
    text, name = "the same in red", before.fingerprint
    assert [clause.readings for clause in before.method.parser.clauses(text)] != [()]
    monkeypatch.setattr(RuleReader, "read", lambda self, text: [])
    monkeypatch.setattr(fingerprints, "READER_VERSION", fingerprints.READER_VERSION + 1)
    after = tiny_model().with_method("dqe_values", {})
    assert after.method.parser.clauses(text) == ()
    assert after.fingerprint != name
    for opening in ways_to_open(after, built):
        opening()


def test_another_composer_opens_an_index(built):
    other = tiny_model().with_method("dqe_values", {"hints": False})
    with torch.no_grad():
        other.method.asks += 1
    for opening in ways_to_open(other, built):
        opening()


@pytest.mark.parametrize("part", ["tower", "heads"])
def test_a_model_with_another_tower_or_other_heads_is_refused(built, part):
    model = tiny_model()
    changed = model.backbone.tower if part == "tower" else model.heads
    with torch.no_grad():
        next(iter(changed.parameters())).add_(0.1)
    other = model.with_method("dqe_values", {})
    for opening in ways_to_open(other, built):
        with pytest.raises(EngineError, match=r"made by another model .*or build the index again"):
            opening()
