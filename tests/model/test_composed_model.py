"""Model folders: reading returns what was written, and wrong content is rejected."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dqecir.encoders.blip2 import Blip2, Blip2Config
from dqecir.errors import CheckpointError, DataError
from dqecir.language.reader_version import READER_VERSION
from dqecir.language.tagging import shipped_tagger
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.model.composed_model import ComposedModel, new_model

CONFIG_OF_0_1_0 = json.loads((Path(__file__).parents[1] / "golden" / "17_config_0_1_0.json").read_text())
"""``config.json`` of the model that version 0.1.0 shipped."""


@pytest.mark.parametrize("method", ["image_plus_text", "dqe", "dqe_heads"])
def test_there_and_back_again(model, tmp_path, method):
    written = model.with_method(method, {})
    written.save_pretrained(tmp_path / "m")
    read = ComposedModel.from_pretrained(tmp_path / "m")
    assert read.fingerprint == written.fingerprint
    assert read.tower_fingerprint == written.tower_fingerprint
    assert [v.name for v in read.vocabularies] == [v.name for v in written.vocabularies]
    text = written.text_encoder(["is red and has short sleeves"])
    tokens = torch.randn(1, 16, 16)
    theirs = written.eval().method.embed_query(tokens, text).embeddings
    ours = read.method.embed_query(tokens, read.text_encoder(["is red and has short sleeves"])).embeddings
    assert torch.equal(ours, theirs)


def test_half_precision_is_half_the_size_and_nearly_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "full")
    model.save_pretrained(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    read = ComposedModel.from_pretrained(tmp_path / "half")
    assert read.backbone.query_tokens.dtype == torch.float32
    assert torch.allclose(read.backbone.query_tokens, model.backbone.query_tokens, atol=1e-3)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no config\.json"):
        ComposedModel.from_pretrained(tmp_path)


def test_a_damaged_weight_file_is_refused(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "m")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        ComposedModel.from_pretrained(folder)


def test_a_missing_weight_file_is_refused(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is incomplete"):
        ComposedModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "newer dqecir"),
        ({"reader_version": 99}, r"newer reader of texts .version 99, .*: upgrade dqecir"),
        ({"method": "dqee"}, "did you mean 'dqe'"),
        ({"options": {"margn": 1}}, "margn"),
        (
            {"backbone": {"tower": {"kind": "stem", "image_size": 32, "widths": [8]}, "hiden_size": 1}},
            "hidden_size",
        ),
    ],
)
def test_a_foreign_config_is_refused_by_name(model, tmp_path, change, message):
    folder = model.save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError, match=message):
        ComposedModel.from_pretrained(folder)


def test_a_folder_names_its_text_reader_and_an_older_one_needs_not(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("reader_version") == READER_VERSION
    (folder / "config.json").write_text(json.dumps(config))
    assert ComposedModel.from_pretrained(folder).fingerprint == model.fingerprint


def test_weights_of_another_size_are_refused_with_their_names(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["backbone"]["embedding_size"] = 20
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="text_projection"):
        ComposedModel.from_pretrained(folder)


def test_saving_over_a_model_replaces_it_whole(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "m")
    (folder / "stray").write_text("x")
    model.save_pretrained(folder)
    assert not (folder / "stray").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


@pytest.fixture
def folder_of_0_1_0(model, tmp_path):
    """Return a folder with the ``config.json`` of the model that version 0.1.0 shipped, and random
    weights."""
    backbone = Blip2(Blip2Config.model_validate(CONFIG_OF_0_1_0["backbone"]))
    heads = AttributeHeads(HeadsConfig.model_validate(CONFIG_OF_0_1_0["heads"]))
    tokenizer = model.text_encoder.tokenizer
    start = new_model(backbone, tokenizer, model.preprocessing, heads, 40, {})
    options = {"attributes": CONFIG_OF_0_1_0["vocabularies"]}
    folder = start.with_method(CONFIG_OF_0_1_0["method"], options).save_pretrained(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(CONFIG_OF_0_1_0))
    return folder


def test_a_model_folder_of_version_0_1_0_opens(folder_of_0_1_0):
    read = ComposedModel.from_pretrained(folder_of_0_1_0)
    known = {key: value for key, value in CONFIG_OF_0_1_0["options"].items() if key != "smoothing"}
    # What came since has its default.
    defaults = type(read.options)().model_dump(mode="json")
    assert read.options.model_dump(mode="json") == defaults | known
    assert defaults["rule"] == "likelihood"
    assert read.notes == CONFIG_OF_0_1_0["notes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"smoothing": 0.1},
            "the option 'smoothing' was removed in version 0.2.0",
        ),
        ({"weights": "softmax"}, "the value 'softmax' of 'weights' was removed in version 0.2.0"),
    ],
)
def test_a_removed_option_in_a_model_folder_is_named(folder_of_0_1_0, change, message):
    config = {**CONFIG_OF_0_1_0, "options": {**CONFIG_OF_0_1_0["options"], **change}}
    (folder_of_0_1_0 / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        ComposedModel.from_pretrained(folder_of_0_1_0)


FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "README.md")


@pytest.mark.parametrize("name", [*FILES, "model.safetensors"])
def test_a_model_folder_half_there_names_the_file(model_folder, tmp_path, name):
    folder = tmp_path / "m"
    shutil.copytree(model_folder, folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=name) as error:
        ComposedModel.from_pretrained(folder)
    assert "\n" not in str(error.value)
    for damage in (b"", b"{\xff", b"[" if name.endswith(".json") else b"\xff"):
        (folder / name).write_bytes(damage)
        if damage or name != "README.md":
            with pytest.raises(DataError, match=name):
                ComposedModel.from_pretrained(folder)


def test_a_folder_holds_its_text_reader_whose_weights_name_answers_and_no_target(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    assert ComposedModel.from_pretrained(tmp_path / "m").fingerprint == model.fingerprint
    other = shipped_tagger("reader-generated")
    replace(model, tagger=other).save_pretrained(tmp_path / "other")
    read = ComposedModel.from_pretrained(tmp_path / "other")
    assert read.tagger is not None and read.tagger.name == other.name
    assert read.fingerprint != model.fingerprint
    assert read.target_fingerprint == model.target_fingerprint
    shutil.rmtree(tmp_path / "m" / "reader")
    assert ComposedModel.from_pretrained(tmp_path / "m").tagger is None


@pytest.mark.parametrize("name", ["vocabularies/shape.yaml", "preprocessor_config.json", "tokenizer.json"])
def test_a_file_that_a_model_folder_lacks_is_named(model, tmp_path, name):
    model.with_method("dqe", {}).save_pretrained(tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} is missing: the model folder is incomplete, copy it"):
        ComposedModel.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("name", ["reader.safetensors", "reader.json", "pieces.txt"])
def test_a_damaged_text_reader_is_refused(model, tmp_path, name):
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "reader" / name).write_text("nothing")
    with pytest.raises(CheckpointError, match=r"reader.*(copy|save)"):
        ComposedModel.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("layers", [None, 1, "three"])
def test_a_text_reader_whose_weights_do_not_fit_is_refused(model, tmp_path, layers):
    settings = model.save_pretrained(tmp_path / "m") / "reader" / "reader.json"
    notes = json.loads(settings.read_text(encoding="utf-8"))
    notes.pop("layers")
    settings.write_text(json.dumps(notes if layers is None else {**notes, "layers": layers}))
    with pytest.raises(CheckpointError, match="weights do not fit its settings: copy it again"):
        ComposedModel.from_pretrained(tmp_path / "m")


def test_a_named_column_that_no_vocabulary_knows_is_compared_by_its_values_names(model, tmp_path):
    heads = model.heads.renamed({"article": "color"})
    options = {"attributes": ["shape"], "columns": ["garment", "article"]}
    made = replace(model, heads=heads).with_method("dqe_values", options)
    assert set(made.method.columns) == {"garment", "article"}
    assert [one.name for one in made.vocabularies] == ["shape", "article"] == [*made.options.attributes]
    read = made.method.parser.asked("the article is red", {"article": {"blue": 1.0}})
    assert read == {"article": frozenset({"red"})}
    again = ComposedModel.from_pretrained(made.save_pretrained(tmp_path / "saved"))
    assert again.method.columns == made.method.columns
    assert again.fingerprint == made.fingerprint


def test_a_named_column_brings_the_shipped_vocabulary_that_knows_it(model):
    made = model.with_method("dqe_values", {"attributes": ["shape"], "columns": ["garment", "color"]})
    assert [one.name for one in made.vocabularies] == ["shape", "colour"]
    assert set(made.method.columns) == {"garment", "color"}
