"""Conversion of published checkpoints: a use for every key, safe reading, complete writing."""

import json
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from dqecir.encoders.checkpoints import lavis_name, lavis_state
from dqecir.encoders.lavis_sizes import lavis_sizes
from dqecir.encoders.tokenizer import train_word_pieces
from dqecir.errors import CheckpointError, DataError
from dqecir.methods.method import method_named
from dqecir.model.composed_model import ComposedModel
from dqecir.model.conversion import convert, load_composer, published_composer, read_published, sources

GOLDEN = Path(__file__).parents[1] / "golden"

WIDTH, HIDDEN, SIZE, QUERIES = 64, 64, 16, 4


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    pieces = train_word_pieces(["is red and blue with long sleeves"] * 3, 120)
    pieces.save_pretrained(tmp_path_factory.mktemp("tokenizer"))
    return pieces


@pytest.fixture(scope="module")
def tokenizer_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lavis(tokenizer):
    """Return a random state dict under the published names of BLIP-2 with ViT-L, two layers of everything."""
    published = json.loads((GOLDEN / "15_state_dict_keys.json").read_text())
    small = {768: HIDDEN, 3072: 128, 30523: len(tokenizer), 512: 48, 1024: WIDTH, 256: SIZE, 32: QUERIES}
    generator = torch.Generator().manual_seed(0)

    def random(shape):
        return torch.randn(shape, generator=generator) * 0.05

    state = {}
    for key, shape in published["qformer_and_heads"].items():
        layer = re.search(r"layer\.(\d+)\.", key)
        if layer is None or int(layer[1]) < 2:
            state[key] = random([small.get(n, n) for n in shape])
    state["Qformer.bert.embeddings.position_ids"] = torch.arange(48)[None]
    state["temp"] = torch.tensor(0.05)
    sizes = {1024: WIDTH, 3072: 3 * WIDTH, 4096: 96, 257: 5}
    for key, shape in published["vision"]["visual_encoder clip_L 224"].items():
        layer = re.search(r"resblocks\.(\d+)\.", key)
        if layer is None or int(layer[1]) < 2:
            state[f"visual_encoder.{key}"] = random([sizes.get(n, n) for n in shape])
    return state


def test_sizes_are_read_off_the_tensors(lavis, tokenizer):
    config = lavis_sizes(lavis)
    assert (config.hidden_size, config.layers, config.heads, config.query_tokens) == (HIDDEN, 2, 1, QUERIES)
    assert (config.embedding_size, config.vocabulary_size) == (SIZE, len(tokenizer))
    assert config.text_positions == 48
    tower = config.tower
    assert (tower.kind, tower.image_size, tower.layers, tower.hidden_size) == ("clip", 28, 2, WIDTH)


@pytest.mark.parametrize("spoilt", [lambda tensor: None, torch.flatten], ids=["missing", "flat"])
def test_weights_without_a_tensor_that_tells_a_size_are_refused_in_one_sentence(lavis, spoilt):
    told = 0
    for key in lavis:
        state = {**lavis, key: spoilt(lavis[key])}
        try:
            lavis_sizes({name: tensor for name, tensor in state.items() if tensor is not None})
        except CheckpointError as error:
            assert key in str(error) or "image tower" in str(error) or "projection" in str(error)
            told += 1
    assert told >= 7


@pytest.mark.parametrize("source", ["clip4cir", "tirg", "searle"])
def test_a_tensor_that_is_no_matrix_is_refused_in_one_sentence(source):
    names = ("text_projection_layer.weight", "gated_feature_composer.3.weight", "layers.0.weight")
    with pytest.raises(CheckpointError, match=r"has the shape \[4, 4, 1\], and is no matrix: copy it again"):
        published_composer(source, {name: torch.zeros(4, 4, 1) for name in names})


def test_the_published_sizes_come_out_as_published():
    published = json.loads((GOLDEN / "15_state_dict_keys.json").read_text())
    state = {k: torch.empty(s, device="meta") for k, s in published["qformer_and_heads"].items()}
    vision = published["vision"]["visual_encoder clip_L 224"]
    state |= {f"visual_encoder.{k}": torch.empty(s, device="meta") for k, s in vision.items()}
    from dqecir.encoders.blip2 import BLIP2_VIT_L

    assert lavis_sizes(state) == BLIP2_VIT_L


@pytest.mark.parametrize("source", ["qure", "sprc", "covr2"])
def test_a_whole_checkpoint_becomes_a_model(source, lavis, tokenizer_folder, tmp_path):
    state = dict(lavis)
    if source == "sprc":
        state["prompt_tokens"] = torch.full((1, QUERIES, HIDDEN), 0.5)
    torch.save({"epoch": 3, "model": state}, tmp_path / "published.pt")
    out = tmp_path / "model"
    report = convert(source, tmp_path / "published.pt", out, tokenizer=str(tokenizer_folder))
    assert report.complete
    assert {"itm_head.weight", "Qformer.cls.predictions.bias"} <= set(report.dropped)
    model = ComposedModel.from_pretrained(out)
    assert model.method.name == source
    assert torch.equal(model.backbone.query_tokens, lavis["query_tokens"])
    assert torch.equal(model.backbone.temperature, lavis["temp"])
    if source == "sprc":
        assert torch.equal(model.method.prompt_tokens, state["prompt_tokens"])
    told = json.loads((out / "conversion.json").read_text())
    assert told["from"] == source and told["missing"] == told["unexpected"] == []
    # Every key of the file is one or the other, under the name that it has there.
    assert sorted(told["used"] + told["not_needed"]) == sorted(state)
    with torch.no_grad():
        tokens = model.backbone.image_tokens(torch.zeros(2, 3, 28, 28))
        query = model.method.embed_query(tokens, model.text_encoder(["is red", "is blue"]))
    assert query.embeddings.isfinite().all()


def test_a_missing_tower_is_taken_from_another_checkpoint(lavis, tokenizer_folder, tmp_path):
    towerless = {key: value for key, value in lavis.items() if not key.startswith("visual_encoder.")}
    save_file(towerless, tmp_path / "towerless.safetensors")
    save_file({k: v.contiguous() for k, v in lavis.items()}, tmp_path / "blip2.safetensors")
    with pytest.raises(CheckpointError, match="--pretrained"):
        convert("qure", tmp_path / "towerless.safetensors", tmp_path / "a", tokenizer=str(tokenizer_folder))
    assert not (tmp_path / "a").exists()
    report = convert(
        "qure",
        tmp_path / "towerless.safetensors",
        tmp_path / "b",
        pretrained=tmp_path / "blip2.safetensors",
        tokenizer=str(tokenizer_folder),
    )
    assert report.complete


def test_covr2_targets_are_those_of_the_model_it_was_trained_from(lavis, tokenizer_folder, tmp_path):
    trained = {key: value for key, value in lavis.items() if key != "temp"}
    trained["query_tokens"] = lavis["query_tokens"] + 1
    save_file(trained, tmp_path / "covr2.safetensors")
    save_file({k: v.contiguous() for k, v in lavis.items()}, tmp_path / "blip2.safetensors")
    convert(
        "covr2",
        tmp_path / "covr2.safetensors",
        tmp_path / "out",
        pretrained=tmp_path / "blip2.safetensors",
        tokenizer=str(tokenizer_folder),
    )
    model = ComposedModel.from_pretrained(tmp_path / "out")
    assert torch.equal(model.backbone.query_tokens, trained["query_tokens"])
    assert torch.equal(model.method.target_backbone.query_tokens, lavis["query_tokens"])
    assert model.preprocessing.squash


def test_a_key_too_few_or_too_many_is_named(lavis, tokenizer_folder, tmp_path):
    lacking = {key: value for key, value in lavis.items() if key != "text_proj.bias"}
    save_file(lacking | {"strange.weight": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=r"text_proj\.bias.*strange\.weight") as error:
        convert("qure", tmp_path / "odd.safetensors", tmp_path / "out", tokenizer=str(tokenizer_folder))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_size_is_refused(lavis, tmp_path):
    train_word_pieces(["other words entirely"], 60).save_pretrained(tmp_path / "other")
    save_file(lavis, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="word pieces"):
        convert("qure", tmp_path / "x.safetensors", tmp_path / "out", tokenizer=str(tmp_path / "other"))


def test_an_unknown_source_names_the_nearest(tmp_path):
    with pytest.raises(DataError, match="did you mean 'sprc'"):
        convert("sprcc", tmp_path / "x.pt", tmp_path / "out")


class Evil:
    """An object that writes a file when its pickle is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("content", ["pickle", "truncated", "text", "nothing", "two"])
def test_files_that_are_no_checkpoint_get_a_sentence(content, lavis, tmp_path):
    path = tmp_path / "published.pt"
    if content == "pickle":
        torch.save({"model": Evil(tmp_path / "mark")}, path)
    elif content == "truncated":
        torch.save(lavis, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif content == "text":
        path.write_text("not a checkpoint")
    elif content == "two":
        torch.save({"a": {"x": torch.zeros(1)}, "b": {"y": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError) as error:
        read_published(path)
    assert str(path) in str(error.value)
    assert not (tmp_path / "mark").exists()


def test_plain_pickles_are_not_read(tmp_path):
    path = tmp_path / "published.pt"
    path.write_bytes(pickle.dumps({"x": Evil(tmp_path / "mark")}))
    with pytest.raises(CheckpointError):
        read_published(path)
    assert not (tmp_path / "mark").exists()


def test_wrappers_names_are_taken_off(tmp_path):
    torch.save({"state_dict": {"module.model.a": torch.ones(1)}}, tmp_path / "x.pt")
    assert list(read_published(tmp_path / "x.pt")) == ["a"]


@pytest.fixture(scope="module")
def covr():
    """Return a state dict under CoVR's published names, with two of the tower's, and its results."""
    case = load_file(GOLDEN / "16_covr_blip.safetensors")
    state = {k.removeprefix("state/"): v for k, v in case.items() if k.startswith("state/")}
    state["visual_encoder.cls_token"] = torch.zeros(1, 1, 48)
    state["visual_encoder.blocks.0.attn.qkv.weight"] = torch.zeros(144, 48)
    return state, case


def save_as_covr_does(state, path, monkeypatch, name="CosineSchedule"):
    """Save weights under ``model``, and the object of the learning rate, whose class is CoVR's own."""
    module = ModuleType("src.tools.scheduler")
    schedule = type(name, (), {"__module__": module.__name__})
    setattr(module, name, schedule)
    beside = schedule()
    beside.init_lr = 1e-4
    with monkeypatch.context() as patch:
        for package in ("src", "src.tools"):
            patch.setitem(sys.modules, package, ModuleType(package))
        patch.setitem(sys.modules, module.__name__, module)
        torch.save({"epoch": 4, "model": state, "optimizer": {"state": {}}, "scheduler": beside}, path)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_covr_becomes_a_composer_over_image_tokens(prefix, covr, tmp_path, monkeypatch):
    state, case = covr
    save_as_covr_does({prefix + k: v for k, v in state.items()}, tmp_path / "covr.ckpt", monkeypatch)
    report = convert("covr", tmp_path / "covr.ckpt", tmp_path / "out")
    not_needed = [k for k in state if k.startswith("visual_encoder.") or k.endswith("position_ids")]
    assert report.complete and list(report.dropped) == sorted(not_needed)
    told = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert told["not_needed"] == sorted(not_needed) and told["missing"] == []
    assert sorted(told["used"] + told["not_needed"]) == sorted(state)
    composer = load_composer(tmp_path / "out")
    ours = composer.state_dict()
    for key in state.keys() - set(not_needed):
        assert torch.equal(ours[key.replace("_proj.", "_projection.")], state[key]), key
    with torch.no_grad():
        query = composer(case["in/image_tokens"], case["in/ids"], case["in/mask"])
    assert torch.allclose(query, case["out/query"], atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"text_proj.bias": None}, r"1 missing: text_proj\.bias"),
        ({"vision_proj.weight": torch.zeros(16, 40)}, r"1 misshapen: vision_proj\.weight \[16, 40\]"),
        ({"image_queue": torch.zeros(2, 2)}, "1 unexpected: image_queue"),
        ({"text_encoder.embeddings.word_embeddings.weight": None}, "no text encoder of BLIP"),
    ],
)
def test_a_covr_checkpoint_that_does_not_fit_is_named(changed, words, covr, tmp_path):
    kept = {key: value for key, value in (covr[0] | changed).items() if value is not None}
    save_file(kept, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=words) as error:
        convert("covr", tmp_path / "odd.safetensors", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fixture", "source"),
    [
        ("04_clip4cir_combiner", "clip4cir"),
        ("05_tirg", "tirg"),
        ("06_composeae", "composeae"),
        ("07_cosmo", "cosmo"),
        ("09_biblip4cir", "biblip4cir"),
        ("16_covr_blip", "covr"),
    ],
)
def test_what_a_composer_lacks_is_named_as_its_code_names_it(fixture, source):
    case = load_file(GOLDEN / f"{fixture}.safetensors")
    state = {k.removeprefix("state/"): v for k, v in case.items() if k.startswith("state/")}
    kind = method_named(source)
    composer = kind.composer_of(state)
    used = kind.published_keys.load(composer, state).used
    assert used
    for lost in used:
        with pytest.raises(CheckpointError, match=f"1 missing: {re.escape(lost)};"):
            kind.published_keys.load(composer, {key: value for key, value in state.items() if key != lost})


@pytest.mark.parametrize("tower", ["clip", "eva"])
def test_what_blip2_lacks_is_named_as_lavis_names_it(tower):
    published = json.loads((GOLDEN / "15_state_dict_keys.json").read_text())
    names = next(keys for name, keys in published["vision"].items() if f" {tower}_" in name)
    state = {key: torch.zeros(1) for key in published["qformer_and_heads"]}
    state |= {f"visual_encoder.{key}": torch.zeros(3) for key in names}
    used = {key for key in state if not re.search(r"^Qformer\.cls\.|position_ids$|^itm_head\.", key)}
    # EVA's two biases are one tensor of ours, which is called by the first of them.
    named = {key for key in used if not key.endswith("v_bias")}
    assert {lavis_name(key, tower) for key in lavis_state(state, tower)} == named
    if tower == "eva":
        lost = "visual_encoder.blocks.3.attn.v_bias"
        with pytest.raises(CheckpointError, match=re.escape(f"has no {lost}")):
            lavis_state({key: value for key, value in state.items() if key != lost}, tower)


def test_a_file_of_another_kind_is_no_checkpoint(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}')
    with pytest.raises(CheckpointError, match=r"a\.jsonl is not a checkpoint: name a file of weights"):
        convert("covr", tmp_path / "a.jsonl", tmp_path / "out")


def test_objects_of_other_classes_beside_the_tensors_are_refused(covr, tmp_path, monkeypatch):
    save_as_covr_does(covr[0], tmp_path / "covr.ckpt", monkeypatch, name="Another")
    with pytest.raises(CheckpointError, match="more than tensors"):
        convert("covr", tmp_path / "covr.ckpt", tmp_path / "out")


def test_a_composer_is_no_model_and_says_what_opens_it(covr, tmp_path):
    save_file(covr[0], tmp_path / "covr.safetensors")
    convert("covr", tmp_path / "covr.safetensors", tmp_path / "out")
    with pytest.raises(DataError, match=r"only the composer of covr.*open it with .*load_composer") as error:
        ComposedModel.from_pretrained(tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_composer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not a converted composer"):
        load_composer(tmp_path)


def test_what_can_be_converted_is_known():
    assert {"qure", "sprc", "covr", "covr2"} <= set(sources())
