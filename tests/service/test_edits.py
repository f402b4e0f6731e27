"""Edits over HTTP: errors for missing parts, and edits by an editor."""

import base64
import io

import pytest
from PIL import Image, ImageOps

from dqecir.errors import EditError
from dqecir.search.editing import Editor
from tests.service.conftest import form, refused


def test_without_a_pipeline_the_service_says_what_is_missing(client, picture):
    about = client.get("/v1/about").json()
    assert about["can_edit"] is False
    assert refused(client.post("/v1/edits", **form({"text": "is red"}, picture)), 501) == about["edit_note"]


@pytest.fixture
def editing(serving, monkeypatch):
    """Yield a service whose editor turns pictures into their negatives."""
    monkeypatch.setattr(Editor, "missing", lambda self: None)
    monkeypatch.setattr(Editor, "edit", lambda self, picture, text: ImageOps.invert(picture))
    with serving() as client:
        yield client


def test_the_reference_or_the_best_answer_is_edited(editing, picture, retriever):
    assert editing.get("/v1/about").json()["can_edit"] is True

    def edited(source: str) -> Image.Image:
        told = editing.post("/v1/edits", **form({"text": "is red", "source": source}, picture))
        assert told.status_code == 200, told.text
        head, _, data = told.json()["image"].partition(",")
        assert head == "data:image/jpeg;base64"
        return Image.open(io.BytesIO(base64.b64decode(data)))

    first = ImageOps.invert(edited("reference").convert("L"))
    assert first.size == (60, 80)
    # The gradient of the upload: dark above, bright below.
    assert first.getpixel((30, 5)) < 60
    assert first.getpixel((30, 75)) > 190
    best = retriever.search(picture, "is red", 1).hits[0]
    assert edited("best").size == Image.open(best.payload["path"]).size


def test_an_edit_needs_one_reference(editing, picture):
    said = "send one of them"
    assert said in refused(editing.post("/v1/edits", json={"text": "is red"}), 422)
    both = form({"text": "is red", "item": "a"}, picture)
    assert said in refused(editing.post("/v1/edits", **both), 422)


def test_an_edit_that_fails_tells_nothing_of_this_machine(editing, picture, monkeypatch):
    def broken(self, picture, text):
        raise EditError("/secret/folder cannot be read")

    monkeypatch.setattr(Editor, "edit", broken)
    assert "secret" not in refused(editing.post("/v1/edits", **form({"text": "is red"}, picture)), 503)
    refused(editing.post("/v1/edits", **form({"text": " "}, picture)), 422)
    refused(editing.post("/v1/edits", **form({"text": "is red", "source": "worst"}, picture)), 422)


def test_a_pipeline_that_is_none_is_refused_at_the_start(serving, tmp_path):
    with pytest.raises(EditError, match=r"model_index\.json"), serving(checkpoint=tmp_path):
        pass
