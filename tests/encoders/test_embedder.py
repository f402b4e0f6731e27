"""Embedders of sentence-transformers: equal results, and folders that are rejected."""

import json
import shutil
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from dqecir.encoders.embedder import OWN_FOLDER, PREPARATION, SIDE, Embedder
from dqecir.encoders.encoder import unit
from dqecir.encoders.tokenizer import train_word_pieces
from dqecir.errors import CheckpointError, DataError
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import model_of
from dqecir.search.opening import model_of_index
from dqecir.search.retriever import ComposedRetriever
from tests.encoders.dual_cases import CORPUS, louder, pictures

sentence_transformers = pytest.importorskip("sentence_transformers", reason="the extra embedders is absent")

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a tiny BLIP, which sentence-transformers reads with images, texts, and both."""
    from sentence_transformers.base.modules import Transformer

    place = tmp_path_factory.mktemp("embedder")
    train_word_pieces(CORPUS, 200).save_pretrained(place / "pieces")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place / "pieces")
    torch.manual_seed(0)
    text = {**SIZES, "vocab_size": len(tokenizer) + 2, "encoder_hidden_size": 24, "projection_dim": 16}
    config = transformers.BlipConfig(
        text_config={**text, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "pad_token_id": 0},
        vision_config={**SIZES, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    louder(transformers.BlipModel(config)).save_pretrained(place / "blip")
    processor = BlipImageProcessorPil(size={"height": 32, "width": 32})
    transformers.BlipProcessor(processor, tokenizer).save_pretrained(place / "blip")
    made = sentence_transformers.SentenceTransformer(
        modules=[Transformer(str(place / "blip"))], device="cpu", prompts={"query": "find: ", "document": ""}
    )
    made.save_pretrained(str(place / "tiny"))
    (place / "tiny" / "README.md").write_text("---\nlicense: mit\n---\n")
    return place / "tiny"


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copied")


def test_vectors_are_those_of_sentence_transformers_with_its_instruction(folder):
    model = model_of(str(folder))
    assert isinstance(model.backbone, Embedder)
    assert (model.method.name, model.backbone.origin.licence) == ("read_together", "mit")
    published = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    texts = ["is red", "has short sleeves and is blue", ""]
    prepared = [PREPARATION.picture(picture) for picture in pictures(3)]
    with torch.no_grad():
        tokens = model.backbone.image_tokens(torch.stack([model.preprocessing(p) for p in pictures(3)]))
        assert tokens.shape == (3, *_shape(model))
        images = model.backbone.pooled_image(tokens)
        query = model.method.embed_query(tokens.half(), model.text_encoder(texts, blank=True)).embeddings
    right = published.encode_document(prepared, convert_to_tensor=True)
    torch.testing.assert_close(images, right, atol=1e-4, rtol=1e-4)
    both = [{"image": picture, "text": text} for picture, text in zip(prepared, texts, strict=True)]
    asked = published.encode_query(both[:2], convert_to_tensor=True)
    torch.testing.assert_close(query[:2, 0], unit(asked), atol=1e-4, rtol=1e-4)
    alone = published.encode_query(prepared[2:], convert_to_tensor=True)
    torch.testing.assert_close(query[2], unit(alone), atol=1e-4, rtol=1e-4)


def test_queries_are_encoded_with_the_models_instruction_and_images_as_documents(folder, monkeypatch):
    model, called = model_of(str(folder)), []

    def noted(name):
        return lambda inputs, **form: called.append((name, inputs)) or torch.ones(len(inputs), 16)

    for name in ("encode_query", "encode_document", "encode"):
        monkeypatch.setattr(model.backbone.model, name, noted(name), raising=False)
    tokens = torch.zeros(1, *_shape(model))
    model.method.embed_target(tokens)
    model.method.embed_query(tokens, model.text_encoder(["is red"]))
    assert [name for name, _ in called] == ["encode_document", "encode_query"]
    assert called[1][1][0]["text"] == "is red"


def _shape(model):
    return model.backbone.sizes.token_count, model.backbone.sizes.token_width


def test_a_picture_comes_back_from_its_tokens_as_it_was():
    from dqecir.encoders.embedder import Patches, pictures_in

    picture = PREPARATION.picture(pictures(1)[0])
    assert picture.size == (SIDE, SIDE)
    [again] = pictures_in(Patches()(PREPARATION(picture)[None]).half())
    assert again.tobytes() == picture.tobytes()


def test_an_index_is_built_and_searched(folder, garments_folder, tmp_path, dqecir):
    shop, index = tmp_path / "shop", tmp_path / "i"
    shop.mkdir()
    for path in sorted((garments_folder / "images").iterdir())[:6]:
        shutil.copy(path, shop / path.name)
    code, _, err = dqecir("index", "build", "--encoder", folder, "--images", shop, "--out", index)
    assert code == 0, err
    picture = sorted(shop.iterdir())[0]
    code, out, err = dqecir("search", "--index", index, "--image", picture, "--text", "is red", "-k", 2)
    assert code == 0, err
    assert len(out.splitlines()) == 2
    assert model_of_index(index).method.name == "read_together"


def test_a_model_folder_contains_it(copied, tmp_path):
    model = model_of(str(copied))
    saved = ComposedRetriever.from_encoder(str(copied)).save_pretrained(tmp_path / "m")
    right = _query(model)
    shutil.rmtree(copied)
    again = ComposedModel.from_pretrained(saved)
    torch.testing.assert_close(_query(again), right)
    assert (again.fingerprint, again.target_fingerprint) == (model.fingerprint, model.target_fingerprint)
    assert again.backbone.origin == model.backbone.origin
    # The weights are stored once, as sentence-transformers writes them.
    assert not [key for key in load_file(saved / "model.safetensors") if ".model." in key]
    again.save_pretrained(tmp_path / "again")
    assert ComposedModel.from_pretrained(tmp_path / "again").fingerprint == model.fingerprint
    (saved / OWN_FOLDER / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read as an embedder"):
        ComposedModel.from_pretrained(saved)
    shutil.rmtree(saved / OWN_FOLDER)
    with pytest.raises(CheckpointError, match=r"modules\.json is damaged"):
        ComposedModel.from_pretrained(saved)


def _query(model):
    with torch.no_grad():
        tokens = model.backbone.image_tokens(model.preprocessing(pictures(1)[0])[None])
        return model.method.embed_query(tokens, model.text_encoder(["is red"])).embeddings


def test_its_tower_is_not_stored_elsewhere(folder, tmp_path):
    with pytest.raises(DataError, match="has no tower of its own: save the whole model"):
        model_of(str(folder)).save_pretrained(tmp_path / "m", tower_by_reference=True)
    assert not (tmp_path / "m").exists()


def test_a_method_that_reads_states_is_refused(folder):
    with pytest.raises(DataError, match="dqe needs text_states and word_embeddings, which"):
        model_of(str(folder)).with_method("dqe", {})
    with pytest.raises(DataError, match="must be trained first"):
        ComposedRetriever.from_encoder(str(folder), "tirg")


def test_blip2_reads_both_together_too(model):
    ours = model.with_method("read_together", {}).eval()
    tokens = torch.randn(2, *_shape(ours))
    found = ours.method.embed_query(tokens, ours.text_encoder(["is red", "is blue"])).embeddings
    assert found.shape == (2, 1, ours.backbone.sizes.embedding)


def test_the_absent_extra_is_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(CheckpointError, match=r"not installed: pip install 'dqecir\[embedders\]'"):
        model_of(str(folder))


def _modules(folder, **changes):
    path = folder / "modules.json"
    [module] = json.loads(path.read_text())
    path.write_text(json.dumps([module | changes]))


@pytest.mark.parametrize(
    ("breaking", "sentence"),
    [
        (lambda f: _modules(f, type="custom_st.Evil"), "needs code of its own .*custom_st.Evil"),
        (lambda f: (f / "modules.json").write_text("{"), "modules.json is damaged"),
        (lambda f: (f / "modules.json").write_text('[{"type": "x"}]'), "modules.json is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "cannot be read as an embedder"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "is a pickle"),
        (lambda f: (f / "config.json").unlink(), "."),
    ],
)
def test_a_broken_folder_is_one_sentence(copied, breaking, sentence):
    breaking(copied)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        model_of(str(copied))
    assert "\n" not in str(caught.value)
    assert str(copied) in str(caught.value)


def test_code_of_a_checkpoint_is_never_run(copied):
    said = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(said | {"auto_map": {"AutoModel": "evil.Evil"}}))
    (copied / "evil.py").write_text("raise SystemExit('code of a stranger ran')")
    with pytest.raises(CheckpointError, match="needs code of its own"):
        model_of(str(copied))
