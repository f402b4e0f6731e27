"""An index made with a published encoder: built, reopened, searched with words, moved, served."""

import json
import shutil

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from dqecir.data.images import load_image
from dqecir.encoders.encoder import unit
from dqecir.errors import DataError, EngineError
from dqecir.index.engines import open_index
from dqecir.methods.scoring import score
from dqecir.model.maker import FILE, LEARNED, Maker, read_maker
from dqecir.search.opening import model_of_index
from dqecir.search.retriever import ComposedRetriever
from dqecir.service.app import create_app
from dqecir.service.configuration import ServiceSettings
from tests.encoders.dual_cases import write_clip, write_siglip
from tests.service.conftest import HERE


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = write_clip(tmp_path_factory.mktemp("clip") / "clip")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory, garments_folder):
    """Return a dozen pictures of garments."""
    folder = tmp_path_factory.mktemp("shop")
    for path in sorted((garments_folder / "images").iterdir())[:12]:
        shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture
def index(clip, shop, tmp_path, dqecir):
    code, _, err = dqecir("index", "build", "--encoder", clip, "--images", shop, "--out", tmp_path / "i")
    assert code == 0, err
    assert "licence: cc-by-nc-4.0, non-commercial use only" in err
    return tmp_path / "i"


def test_an_index_is_searched_with_any_words_and_no_model_named(index, clip, shop, dqecir):
    picture = sorted(shop.iterdir())[0]
    code, out, err = dqecir(
        *("search", "--index", index, "--image", picture, "--text", "is red with stripes", "-k", 3, "--json")
    )
    assert code == 0, err
    found = [result["id"] for result in json.loads(out)["answers"]]
    model = model_of_index(index)
    with torch.no_grad():
        seen = torch.stack([model.preprocessing(load_image(path)) for path in sorted(shop.iterdir())])
        images = unit(model.backbone.pooled_image(model.backbone.image_tokens(seen)))
        text = unit(model.backbone.pooled_text(model.text_encoder(["is red with stripes"])))
    scores = images @ unit(images[:1] + text)[0]
    order = [sorted(shop.iterdir())[place].name for place in scores.argsort(descending=True).tolist()]
    assert found == [name for name in order if name != picture.name][:3]


def test_the_index_says_what_made_it(index, clip, dqecir):
    made = Maker(encoder=str(clip.resolve()), licence="cc-by-nc-4.0", method="image_plus_text")
    assert read_maker(index) == made
    _, out, _ = dqecir("index", "info", "--index", index)
    said = json.loads(out)
    assert (said["encoder"], said["licence"]) == (str(clip.resolve()), "cc-by-nc-4.0")


def test_a_model_card_says_whose_encoder_it_is(clip, tmp_path):
    folder = ComposedRetriever.from_encoder(str(clip)).save_pretrained(tmp_path / "m")
    card = (folder / "README.md").read_text()
    assert f"{clip.resolve()} (licence: cc-by-nc-4.0, non-commercial use only)" in card


def test_pictures_are_added_and_the_engine_changed(index, garments_folder, tmp_path, dqecir):
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(sorted((garments_folder / "images").iterdir())[20], more / "new.jpg")
    code, _, err = dqecir("index", "add", "--index", index, "--images", more)
    assert code == 0, err
    assert len(open_index(index)) == 13
    code, _, err = dqecir("index", "move", index, tmp_path / "moved", "--engine", "exact")
    assert code == 0, err
    assert read_maker(tmp_path / "moved") == read_maker(index)


def test_another_encoder_is_refused_and_a_model_folder_may_be_named(index, clip, model_folder, tmp_path):
    with pytest.raises(EngineError, match="made by another model"):
        ComposedRetriever.of_index(index, model_folder)
    retriever = ComposedRetriever.from_encoder(str(clip))
    same = retriever.save_pretrained(tmp_path / "m")
    assert ComposedRetriever.of_index(index, same).index is not None
    changed = read_maker(index).model_copy(update={"encoder": str(write_siglip(tmp_path / "siglip"))})
    (index / FILE).write_text(changed.model_dump_json())
    with pytest.raises(EngineError, match="made by another model"):
        ComposedRetriever.of_index(index)


def test_building_again_with_a_model_folder_forgets_the_encoder(index, shop, model_folder, dqecir):
    code, _, err = dqecir("index", "build", "--model", model_folder, "--images", shop, "--out", index)
    assert code == 0, err
    assert read_maker(index) is None


def test_tokens_are_kept_and_not_encoded_twice(clip, shop, tmp_path):
    retriever = ComposedRetriever.from_encoder(str(clip))
    retriever.build_index(shop, tmp_path / "i", quiet=True, tokens=tmp_path / "tokens")
    plain = ComposedRetriever.from_encoder(str(clip))
    plain.build_index(shop, tmp_path / "j", quiet=True)
    ids = sorted(path.name for path in shop.iterdir())
    torch.testing.assert_close(retriever.index.tokens(ids), plain.index.tokens(ids), rtol=0, atol=2e-3)
    again = ComposedRetriever.from_encoder(str(clip), "text_only")

    def never(pixels):
        raise AssertionError("encoded twice")

    again.model.backbone.image_tokens = never
    again.build_index(shop, tmp_path / "k", quiet=True, tokens=tmp_path / "tokens")


@pytest.mark.parametrize("method", ["tirg", "dqe", "searle"])
def test_a_method_that_must_be_trained_is_refused(clip, method):
    with pytest.raises(DataError, match=f"{method} must be trained first .*image_plus_text"):
        ComposedRetriever.from_encoder(str(clip), method)


@pytest.mark.parametrize("method", ["product", "basic"])
def test_a_composition_of_two_similarities_is_built_reopened_moved_and_added_to(
    method, clip, shop, garments_folder, tmp_path, dqecir
):
    index = tmp_path / "i"
    build = ("index", "build", "--encoder", clip, "--images", shop, "--out", index, "--method", method)
    code, _, err = dqecir(*build)
    assert code == 0, err
    picture = sorted(shop.iterdir())[0]
    asked = ("--image", picture, "--text", "is red with stripes", "-k", 3, "--json")
    first, second = [], []
    for folder, found in ((index, first), (tmp_path / "moved", second)):
        code, out, err = dqecir("search", "--index", folder, *asked)
        assert code == 0, err
        found += [(result["id"], result["score"]) for result in json.loads(out)["answers"]]
        if folder == index:
            assert dqecir("index", "move", index, tmp_path / "moved", "--engine", "exact")[0] == 0
    assert first == second
    model = model_of_index(index)
    with torch.no_grad():
        seen = torch.stack([model.preprocessing(load_image(path)) for path in sorted(shop.iterdir())])
        tokens = model.backbone.image_tokens(seen)
        query = model.method.embed_query(tokens[:1], model.text_encoder(["is red with stripes"]))
        scores = score(query.embeddings, model.method.embed_target(tokens), model.method.score_rule)[0]
    assert [value for _, value in first] == pytest.approx(
        scores[1:].sort(descending=True).values[:3].tolist(), rel=0.02, abs=1e-3
    )
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(sorted((garments_folder / "images").iterdir())[20], more / "new.jpg")
    code, _, err = dqecir("index", "add", "--index", index, "--images", more)
    assert code == 0, err
    code, out, err = dqecir("search", "--index", index, *asked, "--more", "new.jpg")
    assert code == 0, err
    assert json.loads(out)["answers"]
    code, out, err = dqecir("index", "audit", "--index", index, "--queries", 5)
    assert code == 0, err


def test_an_index_that_lost_what_was_learned_of_it_is_one_sentence(clip, shop, tmp_path):
    ComposedRetriever.from_encoder(str(clip), "basic").build_index(shop, tmp_path / "i", quiet=True)
    path = tmp_path / "i" / LEARNED
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EngineError, match="build the index again"):
        model_of_index(tmp_path / "i")
    path.unlink()
    with pytest.raises(EngineError, match="build the index again"):
        model_of_index(tmp_path / "i")
    save_file({"image_mean": torch.zeros(3)}, path)
    with pytest.raises(EngineError, match="build the index again"):
        model_of_index(tmp_path / "i")


def test_an_engine_of_one_inner_product_says_that_it_cannot_follow(clip, shop, tmp_path, dqecir):
    code, _, err = dqecir(
        *("index", "build", "--encoder", clip, "--images", shop, "--out", tmp_path / "i"),
        *("--method", "product", "--engine", "server"),
    )
    assert code == 1
    assert "dot, max_t, max_max, but not product: use the engine exact" in err


def test_a_model_and_an_encoder_are_one_too_many(clip, shop, model_folder, tmp_path, dqecir):
    code, _, err = dqecir(
        *("index", "build", "--encoder", clip, "--model", model_folder),
        *("--images", shop, "--out", tmp_path / "i"),
    )
    assert code == 1
    assert "not both" in err


def test_an_encoder_that_is_not_there_is_one_sentence(shop, tmp_path, dqecir, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = dqecir(
        *("index", "build", "--encoder", "nowhere", "--images", shop, "--out", tmp_path / "i")
    )
    assert code == 1
    assert "there is no folder or file nowhere" in err
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("said", ["[]", "{", '{"encoder": 3}', '{"encodr": "x"}'])
def test_a_damaged_memory_is_one_sentence(index, said):
    (index / FILE).write_text(said)
    with pytest.raises(DataError, match=FILE):
        model_of_index(index)


def test_the_service_opens_it(index, shop):
    with TestClient(create_app(ServiceSettings(index=index)), base_url=HERE) as client:
        item = sorted(shop.iterdir())[0].name
        answer = client.post("/v1/search", json={"item": item, "text": "is blue", "k": 3})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["answers"]) == 3


def test_the_shipped_model_has_a_name(shop, tmp_path):
    retriever = ComposedRetriever.from_encoder("dqecir-small")
    retriever.build_index(shop, tmp_path / "i", quiet=True)
    assert read_maker(tmp_path / "i").encoder == "dqecir-small"
    assert ComposedRetriever.of_index(tmp_path / "i").index is not None
