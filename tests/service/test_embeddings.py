"""A query's vectors find the same items in an exported index, by inner products, as a search in the index."""

import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

from dqecir.index.engines import open_index
from dqecir.index.parquet import export_parquet
from dqecir.search.retriever import ComposedRetriever
from dqecir.service.configuration import ServiceSettings
from tests.conftest import PATIENCE, tiny_model
from tests.service.conftest import form

DOCUMENT = Path(__file__).parents[2] / "docs" / "service.md"

read_table = pytest.importorskip(
    "pyarrow.parquet", reason="pyarrow is not installed: pip install 'dqecir[export]'"
).read_table


@pytest.fixture(scope="module")
def one_vector(tmp_path_factory, garments_folder) -> tuple[Path, Path]:
    """Return a model of the rule ``dot``, and its index of 240 pictures without a table."""
    folder = tmp_path_factory.mktemp("one-vector")
    model = tiny_model().with_method("dqe_values", {"rule": "dot"})
    model.save_pretrained(folder / "model")
    shutil.copytree(garments_folder / "images", folder / "images")
    ComposedRetriever(model).build_index(folder / "images", folder / "index", quiet=True)
    return folder / "model", folder / "index"


@pytest.fixture
def settings(one_vector) -> ServiceSettings:
    return ServiceSettings(index=one_vector[1], model=one_vector[0])


@pytest.fixture(scope="module")
def exported(one_vector, tmp_path_factory):
    """Return the ids and the vectors of the index as another program reads them."""
    path = tmp_path_factory.mktemp("exported") / "items.parquet"
    assert export_parquet(open_index(one_vector[1]), path) == 240
    table = read_table(path)
    width = table.schema.field("vector").type.list_size
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    assert vectors.dtype == np.float32
    return table, table["id"].to_pylist(), vectors


@pytest.fixture(scope="module")
def fingerprint(one_vector) -> str:
    return ComposedRetriever.from_pretrained(one_vector[0]).model.fingerprint


def first_ten_by_product(ids, vectors, query, left_out) -> list[str]:
    order = np.argsort(-(vectors @ query), kind="stable")
    return [ids[row] for row in order if ids[row] not in left_out][:10]


def first_ten_by_faiss(ids, vectors, query, left_out) -> list[str]:
    faiss = pytest.importorskip("faiss", reason="faiss is not installed: pip install faiss-cpu")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    rows = index.search(query[None], 10 + len(left_out))[1][0]
    return [ids[row] for row in rows if ids[row] not in left_out][:10]


REQUESTS = {
    "a text": lambda ids: {"item": ids[3], "text": "is red and has long sleeves"},
    "no text": lambda ids: {"item": ids[3]},
    "a text alone": lambda ids: {"text": "a blue dress"},
    "an uploaded picture": lambda ids: {"text": "is green"},
    "weights": lambda ids: {"item": ids[5], "text": "is red", "weights": {"colour": 3, "shape": 0.5}},
    "more and less": lambda ids: {"item": ids[8], "text": "is red", "more": ids[20:22], "less": [ids[30]]},
    "earlier turns": lambda ids: {"item": ids[9], "text": "has short sleeves", "earlier": ["is red"]},
    "no strictness": lambda ids: {"item": ids[9], "text": "is red", "strictness": 0},
    "left out": lambda ids: {"item": ids[9], "text": "is red", "exclude": ids[:40]},
}


@pytest.mark.parametrize("first_ten", [first_ten_by_product, first_ten_by_faiss])
@pytest.mark.parametrize("name", REQUESTS)
def test_the_first_ten_of_a_search_are_found_in_the_exported_vectors(
    client, exported, fingerprint, picture, name, first_ten
):
    table, ids, vectors = exported
    request = REQUESTS[name](ids)
    sent = form(request, picture) if name == "an uploaded picture" else {"json": request}
    told = client.post("/v1/embeddings", **sent)
    assert told.status_code == 200, told.text
    told = told.json()
    assert (told["score_rule"], told["filters"], told["prefers"]) == ("dot", [], False)
    assert table.schema.metadata[b"target"].decode() == told["target"]
    assert told["model"] == fingerprint
    [query] = np.array(told["embeddings"], dtype=np.float32)
    found = first_ten(ids, vectors, query, set(told["exclude"]))
    sent = form({**request, "k": 10}, picture) if "data" in sent else {"json": {**request, "k": 10}}
    answers = client.post("/v1/search", **sent).json()["answers"]
    assert found == [answer["id"] for answer in answers]
    scores = [float(vectors[ids.index(one)] @ query) for one in found]
    assert scores == pytest.approx([answer["score"] for answer in answers], abs=1e-4)


def test_the_example_of_the_documents_ranks_as_a_search_does(
    process, one_vector, exported, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    export_parquet(open_index(one_vector[1]), Path("items.parquet"))
    _, ids, _ = exported
    (block,) = re.findall(r"```python\n(import httpx.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names = {"SERVICE": process.address, "ITEM": ids[0]}
    exec(compile(block, str(DOCUMENT), "exec"), names)
    best = [ids[row] for row in np.argsort(-names["scores"], kind="stable") if ids[row] != ids[0]][:10]
    request = {"item": ids[0], "text": "is white", "k": 10}
    found = httpx.post(f"{process.address}/v1/search", json=request, timeout=PATIENCE).json()["answers"]
    assert [one["id"] for one in found] == best
