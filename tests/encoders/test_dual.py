"""Dual encoders of transformers: equal results, safe reading, storing in a model folder."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from dqecir.encoders.dual import Dual, DualConfig, published_name, published_state
from dqecir.encoders.encoder import unit
from dqecir.encoders.licences import licence_in
from dqecir.errors import CheckpointError, DataError
from dqecir.methods.method import MethodContext
from dqecir.model.composed_model import ComposedModel
from dqecir.model.conversion import convert
from dqecir.model.public_weights import model_of
from tests.encoders.dual_cases import CORPUS, LENGTH, TEXTS, pictures, write_clip, write_siglip
from tests.methods.steps import a_batch, trained_names

CASES = {
    "clip": write_clip,
    "clip_with_the_first_end_token": lambda folder: write_clip(folder, legacy=True),
    "clip_in_a_pickle_of_tensors": lambda folder: write_clip(folder, safe=False),
    "metaclip_2": lambda folder: write_clip(folder, "metaclip_2"),
    "chinese_clip": lambda folder: write_clip(folder, "chinese_clip"),
    "siglip": write_siglip,
    "siglip_that_masks_padding": lambda folder: write_siglip(folder, masked=True),
    "siglip_padded_on_the_left": lambda folder: write_siglip(folder, left=True),
    "siglip_masked_on_the_left": lambda folder: write_siglip(folder, masked=True, left=True),
}


@pytest.fixture(scope="module", params=CASES)
def folder(request, tmp_path_factory) -> Path:
    return CASES[request.param](tmp_path_factory.mktemp("dual") / request.param)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory) -> Path:
    return write_siglip(tmp_path_factory.mktemp("siglip") / "siglip")


@pytest.fixture
def copied(clip, tmp_path) -> Path:
    return shutil.copytree(clip, tmp_path / "copied")


def close(found, wanted, atol=1e-4):
    torch.testing.assert_close(found, torch.as_tensor(np.asarray(wanted)), rtol=1e-4, atol=atol)


@torch.no_grad()
def theirs(folder: Path, texts=TEXTS):
    """Return (image features, text features, text states) of transformers' own classes, from words and
    pictures."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(pictures(), return_tensors="pt")
    padding = "max_length" if model.config.model_type == "siglip" else True
    read = tokenizer(texts, padding=padding, truncation=True, max_length=LENGTH, return_tensors="pt")
    read = {name: value for name, value in read.items() if name in ("input_ids", "attention_mask")}
    features = model.get_text_features(**read)
    return (
        model.get_image_features(pixel_values=pixels["pixel_values"]).pooler_output,
        features.pooler_output,
        features.last_hidden_state,
    )


@torch.no_grad()
def test_images_and_texts_are_those_of_transformers(folder):
    model = model_of(folder)
    images, texts, _ = theirs(folder)
    seen = torch.stack([model.preprocessing(picture) for picture in pictures()])
    tokens = model.backbone.image_tokens(seen)
    assert tokens.shape[1:] == (model.backbone.sizes.token_count, model.backbone.sizes.token_width)
    close(model.backbone.pooled_image(tokens), images)
    close(model.backbone.pooled_text(model.text_encoder(TEXTS)), texts)
    # One by one they are read as together, whatever padding stands behind them.
    alone = [model.backbone.pooled_text(model.text_encoder([text])) for text in TEXTS]
    close(torch.cat(alone), texts)
    text = model.text_encoder(["is red"])
    query = model.method.embed_query(tokens[:1], text).embeddings[0, 0]
    close(query, unit(unit(images[0]) + unit(texts[0])))


@torch.no_grad()
def test_a_long_text_is_cut_as_transformers_cuts_it(folder):
    model = model_of(folder)
    long = [" ".join(CORPUS)]
    close(model.backbone.pooled_text(model.text_encoder(long)), theirs(folder, long)[1])


@torch.no_grad()
def test_text_states_stand_at_their_tokens(folder):
    model = model_of(folder)
    text = model.text_encoder(TEXTS)
    states = model.backbone.text_states(text.ids, text.mask)
    wanted = theirs(folder)[2]
    assert states.shape == (*text.ids.shape, model.backbone.sizes.word_width)
    for row, length in enumerate(text.mask.sum(dim=1).tolist()):
        left = model.backbone.config.pads_left
        start = wanted.shape[1] - length if left else 0
        close(states[row, :length], wanted[row, start : start + length])


@torch.no_grad()
def test_a_word_replaced_by_another_is_that_word(folder):
    """ "this $ is blue" with the embedding of "red" for the placeholder equals "this red is blue"."""
    model = model_of(folder)
    backbone, placeholder = model.backbone, model.text_encoder.tokenizer.placeholder
    assert placeholder is not None
    open_text = model.text_encoder([f"this is {placeholder.text}", f"{placeholder.text} that is longer"])
    table = backbone.text.text_model.get_input_embeddings().weight
    places = open_text.ids == placeholder.id
    assert places.sum(dim=1).tolist() == [1, 1]
    same = backbone.text_with_words(
        open_text.ids, open_text.mask, table[placeholder.id].expand(2, -1), places
    )
    close(same, backbone.pooled_text(open_text))
    (other, *_) = model.text_encoder.tokenizer.ids("red")
    swapped = open_text.ids.masked_fill(places, other)
    replaced = backbone.text_with_words(open_text.ids, open_text.mask, table[other].expand(2, -1), places)
    close(replaced, backbone.pooled_text(replace(open_text, ids=swapped)))
    close(backbone.pooled_text(open_text), same)


def test_replaced_words_take_gradients(siglip):
    model = model_of(siglip)
    sign = model.text_encoder.tokenizer.placeholder
    text = model.text_encoder([f"a photo of {sign.text}"])
    words = torch.randn(1, model.backbone.sizes.word_width, requires_grad=True)
    model.backbone.text_with_words(text.ids, text.mask, words, text.ids == sign.id).sum().backward()
    assert words.grad.abs().sum() > 0


@torch.no_grad()
def test_logits_are_those_of_transformers(siglip):
    model = model_of(siglip)
    published = transformers.AutoModel.from_pretrained(siglip).eval()
    images, texts, _ = theirs(siglip)
    cosines = unit(images) @ unit(texts).T
    logits = cosines * model.backbone.logit_scale + model.backbone.logit_bias
    close(logits, cosines * published.logit_scale.exp() + published.logit_bias)


def test_a_model_folder_holds_all_of_it(folder, tmp_path):
    model = model_of(folder)
    again = ComposedModel.from_pretrained(model.save_pretrained(tmp_path / "m"))
    assert isinstance(again.backbone, Dual)
    assert again.fingerprint == model.fingerprint
    assert again.tower_fingerprint == model.tower_fingerprint
    assert again.preprocessing == model.preprocessing
    seen = again.preprocessing(pictures(1)[0])[None]
    text = again.text_encoder(TEXTS[:1])
    for name in ("image_plus_text", "text_only"):
        both = [
            one.with_method(name, {}).eval().method.embed_query(one.backbone.image_tokens(seen), text)
            for one in (model, again)
        ]
        close(both[1].embeddings.detach(), both[0].embeddings.detach(), atol=1e-6)


def test_the_tower_may_stay_where_it_is(clip, tmp_path):
    model = model_of(clip)
    written = model.save_pretrained(tmp_path / "m", tower_by_reference=True)
    kept = load_file(written / "model.safetensors")
    assert not any(".tower." in name for name in kept)
    again = ComposedModel.from_pretrained(written)
    assert again.fingerprint == model.fingerprint


def test_convert_writes_a_model_folder(clip, tmp_path):
    report = convert("dual", clip, tmp_path / "m")
    assert not report.missing
    assert not report.unexpected
    assert isinstance(ComposedModel.from_pretrained(tmp_path / "m").backbone, Dual)


def test_a_hub_name_is_pinned_to_its_revision(clip, tmp_path, monkeypatch):
    revision = "0123abc"
    cache = shutil.copytree(clip, tmp_path / "snapshots" / revision)
    (cache / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    asked = []

    def snapshot(name, revision=None, allow_patterns=None):
        asked.append((name, revision))
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    model = model_of("somebody/clip")
    assert model.backbone.origin.source == f"somebody/clip@{revision}"
    folder = model.save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    assert config["encoder"] == {
        "kind": "dual",
        "source": f"somebody/clip@{revision}",
        "licence": "cc-by-nc-4.0",
        "non_commercial": True,
    }
    model_of(f"somebody/clip@{revision}")
    assert asked[-1] == ("somebody/clip", revision)


@pytest.mark.parametrize(
    ("name", "model_type", "config"),
    [
        ("openai/clip-vit-base-patch32", transformers.CLIPModel, transformers.CLIPConfig()),
        (
            "openai/clip-vit-large-patch14",
            transformers.CLIPModel,
            transformers.CLIPConfig(
                projection_dim=768,
                text_config={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
                vision_config={
                    "hidden_size": 1024,
                    "intermediate_size": 4096,
                    "num_attention_heads": 16,
                    "num_hidden_layers": 24,
                    "patch_size": 14,
                },
            ),
        ),
        (
            "google/siglip2-base-patch16-224",
            transformers.SiglipModel,
            transformers.SiglipConfig(text_config={"vocab_size": 256000}, vision_config={"image_size": 224}),
        ),
    ],
)
def test_every_key_of_a_published_size_has_its_place(name, model_type, config):
    with torch.device("meta"):
        published = model_type(config)
        ours = Dual(DualConfig(architecture=config.to_dict()))
    state = published_state(published.state_dict())
    own = ours.state_dict()
    assert state.keys() == own.keys()
    assert {key: value.shape for key, value in state.items()} == {k: v.shape for k, v in own.items()}
    names = {published_name(key, ours.attends) for key in own} - {"logit_bias"}
    assert names == {key for key in published.state_dict() if not key.endswith("ids")} - {"logit_bias"}


# What strangers may send


class Evil:
    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_a_pickle_with_code_is_refused_and_not_run(copied, capsys):
    (copied / "model.safetensors").unlink()
    with (copied / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"vision_model.x": Evil()}, file)
    with pytest.raises(CheckpointError) as caught:
        model_of(copied)
    assert "pytorch_model.bin" in str(caught.value)
    assert "ran" not in capsys.readouterr().out


def test_a_torch_file_with_code_is_refused_and_not_run(copied, capsys):
    (copied / "model.safetensors").unlink()
    torch.save({"state_dict": Evil()}, copied / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="could run code"):
        model_of(copied)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"]
)
def test_a_checkpoint_with_code_of_its_own_is_refused_by_name(copied, name):
    path = copied / name
    read = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(read | {"auto_map": {"AutoModel": "modeling_evil.EvilModel"}}))
    (copied / "modeling_evil.py").write_text("raise SystemExit('code of a stranger ran')")
    with pytest.raises(CheckpointError) as caught:
        model_of(copied)
    assert str(copied) in str(caught.value)
    assert "needs code of its own" in str(caught.value)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _retyped(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _other_shape(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["visual_projection.weight"] = torch.zeros(3, 24)
    save_file(state, folder / "model.safetensors")


def _fewer(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, folder / "model.safetensors")


def _sharded(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def _wrong_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 5
    (folder / "config.json").write_text(json.dumps(config))


HOSTILE = {
    "half a download": (lambda f: _cut(f / "model.safetensors"), "model.safetensors cannot be read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "a missing shard": (_sharded, "there is no file"),
    "an index of nothing": (
        lambda f: (
            (f / "model.safetensors").unlink()
            or (f / "model.safetensors.index.json").write_text('{"weight_map": 3}')
        ),
        "model.safetensors.index.json",
    ),
    "a wrong shape": (_other_shape, r"visual_projection.weight \[3, 24\] where \[18, 24\] is needed"),
    "a missing tensor": (_fewer, "missing: text_projection.weight"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "half a config": (lambda f: _cut(f / "config.json"), "config.json cannot be read"),
    "a config that is a list": (lambda f: (f / "config.json").write_text("[]"), "config.json is not a map"),
    "a config without a kind": (lambda f: (f / "config.json").write_text("{}"), "the kind None"),
    "another kind": (lambda f: _retyped(f / "config.json", model_type="vit"), "the kind 'vit'"),
    "SigLIP 2 of any resolution": (
        lambda f: _retyped(f / "config.json", model_type="siglip2"),
        "SigLIP 2 of a fixed resolution",
    ),
    "sizes that fit nothing": (_wrong_size, "describes no clip model"),
    "half a tokenizer": (lambda f: _cut(f / "tokenizer.json"), "tokenizer"),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        "has no tokenizer",
    ),
    "no preparation": (lambda f: (f / "preprocessor_config.json").unlink(), "no preprocessor_config.json"),
    "half a preparation": (lambda f: _cut(f / "preprocessor_config.json"), "preprocessor_config.json"),
    "a preparation of another size": (
        lambda f: _retyped(f / "preprocessor_config.json", crop_size={"height": 16, "width": 16}),
        "makes pictures of 16 pixels",
    ),
    "an oblong preparation": (
        lambda f: _retyped(f / "preprocessor_config.json", crop_size={"height": 32, "width": 16}),
        "preprocessing that is not supported",
    ),
    "a preparation of patches": (
        lambda f: _retyped(f / "preprocessor_config.json", image_processor_type="Siglip2ImageProcessor"),
        "preprocessor_config.json|preprocessing that is not supported",
    ),
    "a deviation of zero": (
        lambda f: _retyped(f / "preprocessor_config.json", image_std=[0, 0, 0]),
        "image_mean, image_std or resample",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_wrong_with_a_checkpoint_is_one_sentence(copied, what):
    spoil, words = HOSTILE[what]
    spoil(copied)
    with pytest.raises(CheckpointError, match=words) as caught:
        model_of(copied)
    assert "\n" not in str(caught.value)
    assert str(copied) in str(caught.value) or "checkpoint" in str(caught.value)


def test_a_missing_licence_is_no_error(copied):
    assert not (copied / "README.md").exists()
    assert model_of(copied).backbone.origin.licence == "unknown: look it up"


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\ntext", "mit"),
        ("---\r\nlicense: apache-2.0\r\n---\r\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: apple-amlr\n---\n", "apple-amlr"),
        ("---\nlicense:\n- mit\n- cc-by-nc-4.0\n---\n", "mit, cc-by-nc-4.0"),
        ("# No front matter\nlicense: mit\n", "unknown: look it up"),
        ("---\nlicense: [\n---\n", "unknown: look it up"),
        ("---\n- a list\n---\n", "unknown: look it up"),
        ("---\nlicense: mit\n", "unknown: look it up"),
        ("", "unknown: look it up"),
    ],
)
def test_the_licence_is_the_one_of_the_readme(tmp_path, readme, licence):
    (tmp_path / "README.md").write_bytes(readme.encode())
    assert licence_in(tmp_path) == licence


def test_a_licence_file_of_other_bytes_is_unknown(tmp_path):
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\xfe\n---\n")
    assert licence_in(tmp_path) == "unknown: look it up"


def test_a_tokenizer_whose_class_needs_sentencepiece_is_read_from_its_json(siglip, tmp_path):
    folder = shutil.copytree(siglip, tmp_path / "s")
    _retyped(folder / "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    if transformers.utils.is_sentencepiece_available():
        pytest.skip("sentencepiece is installed, so the class itself is read")
    cut, same = (model_of(where).text_encoder(TEXTS) for where in (folder, siglip))
    assert torch.equal(cut.ids, same.ids)


# Methods over it


@pytest.mark.parametrize("name", ["dqe", "dqe_heads", "dqe_values", "qure", "sprc", "covr", "covr2"])
def test_methods_that_read_states_of_a_q_former_are_refused(clip, name):
    with pytest.raises(DataError, match=f"^{name} needs .*composed.*encoder dual .* use {name} with "):
        model_of(clip).with_method(name, {})


OPTIONS = {
    "composeae": {"channels": 12},
    "clip4cir": {"projection_size": 16, "hidden_size": 32},
    "biblip4cir": {"projection_size": 16, "hidden_size": 32},
    "cosmo": {"heads": 4},
    "mgur": {"heads": 4},
    "searle": {"inversion_steps": 3, "dropout": 0.0},
    "lincir": {"dropout": 0.0, "noise": 0.0},
}
TRAINED = [
    "tirg",
    "composeae",
    "clip4cir_sum",
    "clip4cir",
    "biblip4cir_sum",
    "biblip4cir",
    "cosmo",
    "mgur",
    "searle",
    "lincir",
]


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_few_steps_lower_the_loss_of_methods_over_pooled_features(name, kind, request, garments, tmp_path):
    torch.manual_seed(0)
    start = model_of(request.getfixturevalue(kind))
    model = start.with_method(name, OPTIONS.get(name, {}))
    sizes = model.backbone.sizes
    batch = a_batch(model, garments, tokens=sizes.token_count, width=sizes.token_width)
    trained = [parameter for parameter in model.method.parameters() if parameter.requires_grad]
    assert not any(parameter.requires_grad for parameter in model.backbone.tower.parameters())
    optimiser = torch.optim.Adam(trained, lr=2e-3)
    losses = []
    for _ in range(8):
        torch.manual_seed(3)
        model.method.train()
        loss = sum(model.method(batch).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    model.eval()
    with torch.no_grad():
        query = model.method.embed_query(batch.reference, batch.text).embeddings
        again = ComposedModel.from_pretrained(model.save_pretrained(tmp_path / "m"))
        close(again.method.embed_query(batch.reference, batch.text).embeddings, query, atol=1e-5)
        shown = model.method.embed_target(batch.candidates)
    assert shown.shape[1:] == model.method.target_shape


def test_images_stay_what_they_were_where_only_texts_are_trained(clip, garments):
    start = model_of(clip)
    model = start.with_method("biblip4cir_sum", {})
    sizes = model.backbone.sizes
    batch = a_batch(model, garments, tokens=sizes.token_count, width=sizes.token_width)
    before = model.target_fingerprint
    loss = sum(model.method(batch).values())
    loss.backward()
    names = trained_names(model.method)
    assert names
    assert all(name.startswith("backbone.text.") for name in names)
    torch.optim.SGD(model.method.parameters(), lr=0.1).step()
    model.forget_fingerprints()
    assert model.target_fingerprint == before


def test_an_index_fingerprint_names_heads_that_leave_no_trace(clip):
    model = model_of(clip)
    architecture = json.loads(json.dumps(model.backbone.config.architecture))
    architecture["vision_config"]["num_attention_heads"] = 2
    other = Dual(model.backbone.config.model_copy(update={"architecture": architecture}))
    other.load_state_dict(model.backbone.state_dict())
    changed = replace(model, method=type(model.method).build(other, model.options, MethodContext()))
    assert changed.target_fingerprint != model.target_fingerprint


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_words_of_an_attribute_are_marked_whatever_cuts_the_text(kind, request):
    model = model_of(request.getfixturevalue(kind)).with_method(
        "lincir", {"attributes": ("colour", "pattern")}
    )
    text = "is dark red, with stripes"
    batch = model.text_encoder([text])
    cut = model.text_encoder.tokenizer([text], LENGTH)[0]
    for attribute, words in enumerate([("dark", "red"), ("stripes",)]):
        marked = batch.mentions[0, attribute].tolist()
        spans = [cut.offsets[place] for place, is_marked in enumerate(marked) if is_marked]
        pieces = [text[start:end].strip() for start, end in spans]
        assert "".join(pieces) == "".join(words)
