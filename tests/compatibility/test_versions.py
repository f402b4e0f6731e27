"""The promise of docs/compatibility.md: model folders and exact indexes of every version open in this one."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from dqecir import ComposedModel, ComposedRetriever

HERE = Path(__file__).parent
VERSIONS = sorted(path.parent.name for path in HERE.glob("*/expected.json"))


@pytest.fixture(params=VERSIONS)
def written(request, tmp_path) -> Path:
    """Return a copy of the files that a version wrote (write.py)."""
    return shutil.copytree(HERE / request.param, tmp_path / "written")


def expected(written: Path) -> dict:
    return json.loads((written / "expected.json").read_text(encoding="utf-8"))


def test_every_version_of_the_changelog_is_here():
    changelog = (HERE.parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## \[(\d[\d.]*)\]", changelog, re.MULTILINE)) == VERSIONS


def test_a_model_folder_composes_as_it_did_and_is_saved_anew(written, tmp_path):
    for folder in (written / "model", tmp_path / "again"):
        model = ComposedModel.from_pretrained(folder)
        query = ComposedRetriever(model).encode_query(
            [written / "catalogue" / "images" / "0.png"], ["is blue and has long sleeves"]
        )
        torch.testing.assert_close(
            query[0].flatten()[:8], torch.tensor(expected(written)["query"]), atol=1e-4, rtol=1e-3
        )
        model.save_pretrained(tmp_path / "again")


def test_an_index_is_searched_and_changed(written):
    model = written / "model"
    reference = written / "catalogue" / "images" / "0.png"
    retriever = ComposedRetriever.of_index(written / "index", model)
    pictures = sorted((written / "catalogue" / "images").iterdir())
    stored = retriever.index.tokens([f"images/{picture.name}" for picture in pictures]).float()
    torch.testing.assert_close(retriever.encode_images(pictures), stored, atol=2e-3, rtol=0)
    found = retriever.search(reference, "is blue and has long sleeves", k=6).results
    assert {f"images/{number}.png" for number in range(1, 6)} <= {result.id for result in found}
    added = shutil.copy(reference, written / "new.png")
    retriever.add_pictures([Path(added)], quiet=True)
    again = ComposedRetriever.of_index(written / "index", model)
    assert len(again.index) == 7
    assert retriever.index.delete(["images/1.png"]) == 1
    again.index.refresh()
    [green] = again.search(reference, where="color in {blue, green}", k=5).results
    assert green.id == "images/2.png"
