"""Indexes of the engine ``exact`` written by version 0.1.0, in ``written_by_0_1_0/``, still open."""

import shutil
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image

import dqecir
from dqecir.index.contract import ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.search.retriever import ComposedRetriever
from tests.conftest import MODEL_OF_0_1_0

WRITTEN = Path(__file__).parent / "written_by_0_1_0"


def test_an_index_opens_with_the_model_of_then(tmp_path):
    retriever = ComposedRetriever.from_pretrained(MODEL_OF_0_1_0)
    retriever.open_index(shutil.copytree(WRITTEN / "shipped", tmp_path / "index"))
    model = retriever.model
    red, blue = (Image.new("RGB", (32, 32), name) for name in ("red", "blue"))
    with torch.no_grad():
        pixels = torch.stack([model.preprocessing(picture) for picture in (red, blue)])
        tokens = model.method.embed_target(model.backbone.image_tokens(pixels))
    kept = retriever.index.tokens(["red.png", "blue.png"]).float()
    assert torch.nn.functional.cosine_similarity(kept, tokens, dim=2).min() > 0.999
    [hit] = retriever.search(red, "is blue", where="color = blue").hits
    assert (hit.id, hit.payload) == ("blue.png", {"path": "blue.png", "color": "blue"})


def test_segments_and_deleted_items_are_read_and_changed_and_quantized_tokens_left_out(tmp_path):
    """Of 34 items in two segments, two are deleted; the first segment has quantized tokens."""
    folder = shutil.copytree(WRITTEN / "changed", tmp_path / "index")
    ExactIndex.verify(folder)
    index = ExactIndex.open(folder)
    facts = index.info()
    assert (facts["items"], facts["segments"], facts["generation"]) == (32, 2, 5)
    left = [f"item{number}" for number in range(34) if number not in (3, 31)]
    assert [item_id for item_id, _ in index.entries()] == left
    query = torch.tensor([[[1.0, -0.5]]])
    scores = index.tokens(left).float()[:, 0] @ query[0, 0]
    every = [hit.id for hit in index.search(query, 40)[0]]
    assert every == [left[place] for place in scores.argsort(descending=True).tolist()]
    found = index.search(query, 40, where=parse_filter("color = red and price >= 28"))[0]
    assert {hit.id for hit in found} == {"item28", "item30", "item32"}
    index.add(ItemBatch(["item3"], torch.ones(1, 1, 2), [{}]))
    assert len(ExactIndex.open(folder)) == 33
    assert "sketch" not in (folder / "manifest.json").read_text()
    assert not list(folder.glob("s*/sketch.safetensors"))


def test_the_installed_package_tells_the_version_of_its_code():
    assert version("dqecir") == dqecir.__version__
