"""Public BLIP-2 weights: read with equal results, saved without their tower, or rejected."""

import functools
import json
import shutil

import huggingface_hub
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from typer.testing import CliRunner

from dqecir.cli import app
from dqecir.encoders import published
from dqecir.encoders.blip2 import BLIP2_VIT_G, Blip2, unit
from dqecir.encoders.checkpoints import load_lavis
from dqecir.encoders.hf_checkpoints import hf_sizes, load_hf
from dqecir.encoders.lavis_sizes import lavis_sizes, lavis_tower
from dqecir.encoders.tokenizer import train_word_pieces
from dqecir.encoders.towers import EVA_VIT_G
from dqecir.errors import CheckpointError, DataError
from dqecir.model.composed_model import ComposedModel
from dqecir.model.conversion import convert, sources
from dqecir.model.public_weights import model_of
from tests.methods.lavis_cases import GOLDEN, part, published_case, relative

SIZE, QUERIES = 28, 5
PIXELS = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
TEXTS = ["is red", "is blue with long sleeves"]


def word_pieces(size: int):
    return train_word_pieces(["is red and blue with long sleeves, more or less than before"] * 3, size)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Return a folder with word pieces of the size of the tiny checkpoints."""
    folder = tmp_path_factory.mktemp("bert")
    word_pieces(64).save_pretrained(folder)
    return folder


def hf_model():
    """Return a random model of the published class, because transformers initialises much of it to zero or
    one.
    """
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    qformer = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6}
    config = transformers.Blip2Config(
        vision_config={**vision, "image_size": SIZE},
        qformer_config={
            **qformer,
            "vocab_size": 64,
            "max_position_embeddings": 40,
            "use_qformer_text_input": True,
        },
        num_query_tokens=QUERIES,
        image_text_hidden_size=24,
    )
    model = transformers.Blip2ForImageTextRetrieval(config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1 + (parameter.data == 1)
    return model


@pytest.fixture(scope="module")
def hf():
    return hf_model()


@pytest.fixture(scope="module")
def hf_folder(hf, bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny-itm"
    hf.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return folder


@pytest.fixture
def hf_copy(hf_folder, tmp_path):
    return shutil.copytree(hf_folder, tmp_path / "copy")


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")


@torch.no_grad()
def embedded(model):
    text = model.text_encoder(TEXTS)
    images = model.backbone.target_embeddings(model.backbone.image_tokens(PIXELS))
    return images, model.backbone.text_embedding(text.ids, text.mask)


def test_transformers_weights_compute_what_transformers_computes(hf, hf_folder):
    model = model_of(hf_folder)
    text = model.text_encoder(TEXTS)
    asked = {"pixel_values": PIXELS, "input_ids": text.ids, "attention_mask": text.mask}
    images, texts = embedded(model)
    scores = torch.einsum("nqd,td->nqt", images, texts).amax(1)
    with torch.no_grad():
        theirs = hf(**asked)
        assert relative(scores, theirs.logits_per_image) < 1e-3
        # The weights were trained with this eps; transformers' own of 1e-6 is the whole difference.
        hf.vision_model.post_layernorm.eps = 1e-5
        exact = hf(**asked)
        hf.vision_model.post_layernorm.eps = 1e-6
    assert relative(images, exact.image_embeds) < 1e-5
    assert relative(texts, exact.text_embeds) < 1e-5
    assert relative(scores, exact.logits_per_image) < 1e-5
    assert model.method.name == "image_plus_text"
    assert model.backbone.temperature.item() == pytest.approx(0.07)


def test_image_tokens_are_normalised_with_the_eps_they_were_trained_with(tmp_path):
    hf = hf_model()
    for name, parameter in hf.vision_model.named_parameters():
        if name.startswith("embeddings") or ".projection." in name or ".fc2." in name:
            parameter.data *= 0.02  # tokens so small that an eps can be seen
    hf.save_pretrained(tmp_path / "hf")
    word_pieces(64).save_pretrained(tmp_path / "hf")
    images, _ = embedded(model_of(tmp_path / "hf"))
    asked = {"pixel_values": PIXELS, "input_ids": torch.ones(1, 2, dtype=torch.long)}
    asked["attention_mask"] = asked["input_ids"]
    with torch.no_grad():
        assert relative(images, hf(**asked).image_embeds) > 1e-3
        hf.vision_model.post_layernorm.eps = 1e-5
        assert relative(images, hf(**asked).image_embeds) < 1e-4


def test_pictures_are_made_as_transformers_makes_them(hf_copy):
    path = hf_copy / "preprocessor_config.json"
    edit_json(path, image_mean=[0.1, 0.2, 0.3], image_std=[0.9, 0.8, 0.7])
    picture = Image.effect_noise((50, 33), 90).convert("RGB")
    theirs = BlipImageProcessorPil.from_pretrained(hf_copy)(picture, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(model_of(hf_copy).preprocessing(picture), theirs, atol=1e-5)


@pytest.mark.parametrize("kept", ["shards", "pickle", "half"])
def test_transformers_weights_in_every_file_they_come_in(hf, hf_folder, hf_copy, kept):
    whole = load_file(hf_copy / "model.safetensors")
    if kept == "pickle":
        (hf_copy / "model.safetensors").unlink()
        torch.save(whole, hf_copy / "pytorch_model.bin")
    elif kept == "shards":
        (hf_copy / "model.safetensors").unlink()
        hf.save_pretrained(hf_copy, max_shard_size="100KB")
        assert len(list(hf_copy.glob("*.safetensors"))) > 1
    else:
        edit_weights(hf_copy, lambda tensors: {key: value.half() for key, value in tensors.items()})
    found, wanted = embedded(model_of(hf_copy)), embedded(model_of(hf_folder))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert relative(ours, theirs) < (2e-2 if kept == "half" else 1e-6)


def test_word_pieces_with_an_image_token_give_way_to_the_named(hf_copy, bert):
    own = transformers.AutoTokenizer.from_pretrained(hf_copy)
    own.add_tokens(["<image>"], special_tokens=True)
    own.save_pretrained(hf_copy)
    assert len(model_of(hf_copy, tokenizer=str(bert)).text_encoder.tokenizer) == 64
    word_pieces(50).save_pretrained(bert.parent / "other")
    with pytest.raises(DataError, match="50 word pieces and the checkpoint 64"):
        model_of(hf_copy, tokenizer=str(bert.parent / "other"))


@pytest.fixture
def golden(monkeypatch, tmp_path):
    """Return golden cases as LAVIS stores them: one file, or two of which the tower's has additional
    weights.
    """
    # Their four heads leave no trace in tensors, and have not the published width.
    tiny = functools.partial(lavis_sizes, heads=4, tower_heads=4)
    monkeypatch.setattr(published, "lavis_sizes", tiny)
    tensors, state = published_case("02_qure_model")
    tower = part(state, "visual_encoder.")
    torch.save({"model": state, "epoch": 3}, tmp_path / "whole.pth")
    rest = {key: value for key, value in state.items() if not key.startswith("visual_encoder.")}
    torch.save({"model": rest}, tmp_path / "rest.pth")
    torch.save(tower | {"norm.weight": torch.ones(40), "head.bias": torch.ones(3)}, tmp_path / "tower.pth")
    return tmp_path, tensors


@pytest.mark.parametrize("files", [("whole.pth", None), ("rest.pth", "tower.pth")])
def test_lavis_files_compute_what_lavis_computed(golden, bert, files):
    folder, tensors = golden
    file, tower = files
    model = model_of(folder / file, tokenizer=str(bert), tower=tower and folder / tower)
    assert model.tower_source == str(folder / (tower or file))
    assert model.preprocessing.squash and model.preprocessing.size == 42
    trunk = load_file(GOLDEN / "14_vit_trunks.safetensors")
    assert relative(model.backbone.image_tokens(trunk["in/images"]), trunk["out/eva_g_tiny"]) < 1e-4
    targets = model.backbone.target_embeddings(tensors["in/tar_vit_features"])
    assert relative(targets, tensors["out/target_token_features_normalised"]) < 1e-4
    states, _ = model.backbone.composed_states(
        tensors["in/ref_vit_features"], tensors["in/input_ids"], tensors["in/text_mask"]
    )
    query = unit(model.backbone.text_projection(states).mean(1))
    assert relative(query, tensors["out/query_features_normalised"]) < 1e-4
    assert torch.equal(model.backbone.temperature, tensors["state/temp"])


def test_published_vit_g_has_a_place_for_every_key():
    lists = json.loads((GOLDEN / "15_state_dict_keys.json").read_text())
    # The list's ViT-L Q-Former reads tokens of 1024; its ViT-g has the right names and a width of 8.
    state = {k: [1408 if n == 1024 else n for n in shape] for k, shape in lists["qformer_and_heads"].items()}
    vit_g = next(names for key, names in lists["vision"].items() if key.startswith("visual_encoder eva"))
    sizes = {
        "cls_token": [1, 1, 1408],
        "pos_embed": [1, 257, 1408],
        "patch_embed.proj.weight": [1408, 3, 14, 14],
        "qkv.weight": [3 * 1408, 1408],
        "attn.proj.weight": [1408, 1408],
        "fc1.weight": [6144, 1408],
        "fc1.bias": [6144],
        "fc2.weight": [1408, 6144],
    }
    for name in vit_g:
        shape = next((size for end, size in sizes.items() if name.endswith(end)), [1408])
        state[f"visual_encoder.{name}"] = shape
    empty = {key: torch.empty(shape, device="meta", dtype=torch.float16) for key, shape in state.items()}
    assert lavis_sizes(empty) == BLIP2_VIT_G
    with torch.device("meta"):
        model = Blip2(BLIP2_VIT_G)
    assert load_lavis(model, empty).complete
    # The file that the tower has for itself goes one block further than BLIP-2 does.
    tower = part(empty, "visual_encoder.")
    more = {"blocks.39.norm1.weight", "norm.weight", "head.weight"}
    file = tower | {key: torch.empty(1408, device="meta") for key in more}
    assert lavis_tower(file).keys() == {f"visual_encoder.{key}" for key in tower}


@pytest.mark.parametrize("size", [224, 364])
def test_published_transformers_weights_have_a_place_for_every_key(size):
    # As on the hub, with the early name of the switch that transformers reads no more.
    config = {
        "architectures": ["Blip2ForImageTextRetrieval"],
        "image_text_hidden_size": 256,
        "model_type": "blip-2",
        "num_query_tokens": 32,
        "qformer_config": {"model_type": "blip_2_qformer", "qformer_text_input": True, "vocab_size": 30523},
        "vision_config": {"model_type": "blip_2_vision_model", "image_size": size},
    }
    theirs = transformers.Blip2Config.from_dict(config)
    theirs.qformer_config.use_qformer_text_input = True
    with torch.device("meta"):
        state = transformers.Blip2ForImageTextRetrieval(theirs).state_dict()
        ours = hf_sizes(config, state)
        report = load_hf(Blip2(ours), state)
    tower = EVA_VIT_G.model_copy(update={"image_size": size})
    assert ours == BLIP2_VIT_G.model_copy(update={"tower": tower})
    assert report.complete
    assert set(report.dropped) == {"itm_head.weight", "itm_head.bias"}


def without(*beginnings):
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(beginnings)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("vision_model."), "no image tower"),
        (without("embeddings."), "cannot read text"),
        (
            without("qformer.encoder.layer.1.intermediate.dense"),
            "cannot read text .it has no qformer.encoder.layer.1",
        ),
        (lambda tensors: tensors | {"query_tokens": torch.zeros(1, 7, 48)}, "5 query tokens.* 7"),
        (without("text_projection.bias"), "1 missing: text_projection.bias"),
        (lambda tensors: tensors | {"language_model.x": torch.zeros(1)}, "unexpected: language_model.x"),
    ],
)
def test_transformers_weights_that_lack_something_are_refused(hf_copy, change, message):
    edit_weights(hf_copy, change)
    with pytest.raises(CheckpointError, match=message) as error:
        model_of(hf_copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("preprocessor_config.json", {"do_center_crop": True}, "do_center_crop True"),
        ("preprocessor_config.json", {"size": {"height": 56, "width": 56}}, "size .*56.*28.* is needed"),
        ("preprocessor_config.json", {"image_std": [1, 0, 1]}, "image_mean or image_std"),
        ("config.json", {"vision_config": {"hidden_act": "relu", "image_size": SIZE}}, "hidden_act 'relu'"),
        ("config.json", {"num_query_tokens": "many"}, "does not describe a BLIP-2"),
    ],
)
def test_settings_that_would_compute_something_else_are_refused(hf_copy, file, changes, message):
    edit_json(hf_copy / file, **changes)
    with pytest.raises(CheckpointError, match=message) as error:
        model_of(hf_copy)
    assert "Traceback" not in str(error.value)


def test_a_clip_tower_without_its_preparation_is_refused(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes)).save_pretrained(tmp_path / "clip")
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        model_of(tmp_path / "clip")


def test_lavis_files_that_do_not_fit_are_refused(golden, bert, hf_folder):
    folder, _ = golden
    for arguments, message in [
        ({"weights": folder / "rest.pth"}, "no image tower"),
        ({"weights": folder / "tower.pth"}, "no Q-Former"),
        ({"weights": folder / "rest.pth", "tower": folder / "rest.pth"}, "contains no image tower"),
        ({"weights": hf_folder / "model.safetensors"}, "name its folder"),
        ({"weights": folder / "none.pth"}, "there is no folder or file"),
        ({"weights": hf_folder, "tower": folder / "tower.pth"}, "only for a LAVIS file"),
    ]:
        with pytest.raises(DataError, match=message) as error:
            model_of(**arguments, tokenizer=str(bert))
        assert "\n" not in str(error.value)


def test_a_tower_of_another_width_is_refused(golden, bert):
    folder, _ = golden
    tower = torch.load(folder / "tower.pth", weights_only=True)
    tower["patch_embed.proj.weight"] = torch.zeros(48, 3, 14, 14)
    torch.save(tower, folder / "wide.pth")
    with pytest.raises(CheckpointError, match="48 numbers, but the Q-Former reads 40"):
        model_of(folder / "rest.pth", tokenizer=str(bert), tower=folder / "wide.pth")


@pytest.mark.parametrize("form", ["hf", "lavis"])
def test_converted_weights_are_the_weights(form, golden, bert, hf_folder, tmp_path):
    source = hf_folder if form == "hf" else golden[0] / "rest.pth"
    tower = None if form == "hf" else golden[0] / "tower.pth"
    out = tmp_path / "model"
    command = ["convert", "--from", form, source, out, "--tokenizer", bert]
    command += [] if tower is None else ["--pretrained", tower]
    ended = CliRunner().invoke(app, list(map(str, command)))
    assert ended.exit_code == 0 and "tensors loaded" in ended.output
    told = json.loads((out / "conversion.json").read_text())
    assert told["from"] == form and {"itm_head.weight", "itm_head.bias"} <= set(told["not_needed"])
    read, straight = ComposedModel.from_pretrained(out), model_of(source, tokenizer=str(bert), tower=tower)
    assert read.fingerprint == straight.fingerprint == model_of(out).fingerprint


def test_a_failed_conversion_leaves_what_was_there(golden, bert, model_folder, tmp_path):
    out = shutil.copytree(model_folder, tmp_path / "model")
    with pytest.raises(DataError, match="--pretrained"):
        convert("lavis", golden[0] / "rest.pth", out, tokenizer=str(bert))
    assert ComposedModel.from_pretrained(out).method.name == "image_plus_text"
    assert {"hf", "lavis"} <= set(sources())


@pytest.fixture
def hub(monkeypatch, hf_folder, tmp_path):
    """Return a hub that has the tiny weights as owner/tiny, at revision abc1."""
    place = shutil.copytree(hf_folder, tmp_path / "hub" / "abc1")

    def snapshot(repository, revision, allow_patterns):
        if (repository, revision) not in {("owner/tiny", None), ("owner/tiny", "abc1")}:
            raise OSError("404: no such repository\nand more about it")
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return place


def test_hub_names_are_fetched_and_kept_with_their_revision(hub):
    model = model_of("owner/tiny")
    assert model.tower_source == "owner/tiny@abc1"
    assert model_of("owner/tiny@abc1").fingerprint == model.fingerprint
    with pytest.raises(CheckpointError, match=r"no folder owner/other.*\(404: no such repository\)"):
        model_of("owner/other")


def trained(model):
    """Return the model after a training step."""
    changed = model.with_method("sprc", {})
    changed.backbone.query_tokens.data += 0.5
    return changed.eval()


@pytest.mark.parametrize("source", ["hf", "lavis", "model"])
def test_a_checkpoint_may_name_its_tower(source, golden, bert, hf_folder, model_folder, tmp_path):
    starts = {
        "hf": lambda: model_of(hf_folder),
        "lavis": lambda: model_of(golden[0] / "rest.pth", tokenizer=str(bert), tower=golden[0] / "tower.pth"),
        "model": lambda: ComposedModel.from_pretrained(model_folder),
    }
    model = trained(starts[source]())
    folder = model.save_pretrained(tmp_path / "step", tower_by_reference=True)
    kept = load_file(folder / "model.safetensors")
    assert "method.prompt_tokens" in kept and not any("backbone.tower" in key for key in kept)
    read = ComposedModel.from_pretrained(folder)
    assert read.fingerprint == model.fingerprint
    assert not any(parameter.requires_grad for parameter in read.backbone.tower.parameters())
    again = read.save_pretrained(tmp_path / "later", tower_by_reference=True)
    assert ComposedModel.from_pretrained(again).fingerprint == model.fingerprint
    whole = read.save_pretrained(tmp_path / "whole")
    assert json.loads((whole / "config.json").read_text())["format"] == 1
    assert ComposedModel.from_pretrained(whole).fingerprint == model.fingerprint


def test_a_named_tower_must_be_there_and_the_same(hf_copy, tmp_path):
    folder = trained(model_of(hf_copy)).save_pretrained(tmp_path / "step", tower_by_reference=True)
    edit_weights(hf_copy, lambda t: t | {"vision_model.embeddings.class_embedding": torch.ones(1, 1, 64)})
    with pytest.raises(CheckpointError, match="another tower"):
        ComposedModel.from_pretrained(folder)
    hf_copy.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"there is no folder or file .*tower\.weights in"):
        ComposedModel.from_pretrained(folder)
    edit_json(folder / "config.json", tower={"weights": str(tmp_path / "elsewhere")})
    with pytest.raises(DataError, match="names no tower"):
        ComposedModel.from_pretrained(folder)


def test_a_tower_that_would_be_lost_is_not_left_out(model, hf_folder, tmp_path):
    with pytest.raises(DataError, match="no other file holds the tower"):
        model.save_pretrained(tmp_path / "m", tower_by_reference=True)
    whole = model.save_pretrained(tmp_path / "runs" / "m")
    read = ComposedModel.from_pretrained(whole)
    for target in (whole, tmp_path / "runs"):
        with pytest.raises(DataError, match="contains the tower itself"):
            read.save_pretrained(target, tower_by_reference=True)
    assert ComposedModel.from_pretrained(whole).fingerprint == model.fingerprint
    read.backbone.tower.requires_grad_(True)
    with pytest.raises(DataError, match="not frozen"):
        read.save_pretrained(tmp_path / "n", tower_by_reference=True)
    assert not (tmp_path / "n").exists()


def test_a_folder_whose_tower_went_away_is_none_to_name(model_folder, tmp_path):
    start = shutil.copytree(model_folder, tmp_path / "start")
    named = trained(ComposedModel.from_pretrained(start)).save_pretrained(
        tmp_path / "step", tower_by_reference=True
    )
    tensors = load_file(start / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if ".tower." not in k}, start / "model.safetensors")
    with pytest.raises(CheckpointError, match="another tower"):
        ComposedModel.from_pretrained(named)


@pytest.fixture
def uploads(monkeypatch):
    found = {}

    def upload_folder(*, repo_id, folder_path):
        found["read"] = ComposedModel.from_pretrained(folder_path)
        found["files"] = sorted(path.name for path in folder_path.iterdir())

    monkeypatch.setattr(
        huggingface_hub, "create_repo", lambda repo_id, **more: found.update(more, name=repo_id)
    )
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    return found


def test_pushing_uploads_the_model_folder(model, uploads):
    model.push_to_hub("owner/mine")
    assert uploads["name"] == "owner/mine" and uploads["private"]
    assert uploads["read"].fingerprint == model.fingerprint
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(uploads["files"])


def test_pushing_without_the_tower_needs_one_that_others_have(hub, hf_folder, uploads):
    trained(model_of("owner/tiny")).push_to_hub("owner/mine", tower_by_reference=True)
    assert uploads["read"].tower_source == "owner/tiny@abc1"
    with pytest.raises(DataError, match="is a file of this machine only"):
        model_of(hf_folder).push_to_hub("owner/mine", tower_by_reference=True)


def test_a_refused_upload_is_one_sentence(model, uploads, monkeypatch):
    def refuse(**_):
        raise OSError("403 Forbidden:\nno rights")

    monkeypatch.setattr(huggingface_hub, "upload_folder", refuse)
    with pytest.raises(DataError, match=r"the hub refused owner/mine \(403 Forbidden: no rights\)"):
        model.push_to_hub("owner/mine")
