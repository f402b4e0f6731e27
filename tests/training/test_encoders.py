"""Training and comparing with a published encoder, which one option names."""

import json

import pytest
import yaml

from dqecir.encoders.dual import Dual
from dqecir.model.composed_model import ComposedModel
from tests.encoders.dual_cases import write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


def recipe(folder, method, options):
    said = {
        "method": method,
        "options": options,
        "negatives": {"choose": "none"},
        "triplets": {"per_reference": 1},
        "training": {"epochs": 1, "batch_size": 32},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(said))
    return folder / "recipe.yaml"


def test_a_method_is_trained_over_a_named_encoder(clip, garments_folder, tmp_path, dqecir):
    made = recipe(tmp_path, "clip4cir", {"projection_size": 16, "hidden_size": 16})
    code, _, err = dqecir(
        *("train", made, "--data", garments_folder, "--encoder", clip, "--out", tmp_path / "run")
    )
    assert code == 0, err
    best = ComposedModel.from_pretrained(tmp_path / "run" / "best")
    assert isinstance(best.backbone, Dual)
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert config["encoder"]["source"] == str(clip.resolve())


def test_a_method_that_does_not_fit_is_refused_in_one_sentence(clip, garments_folder, tmp_path, dqecir):
    made = recipe(tmp_path, "sprc", {})
    code, _, err = dqecir(
        *("train", made, "--data", garments_folder, "--encoder", clip, "--out", tmp_path / "run")
    )
    assert code == 1
    assert "sprc needs composed, which the encoder dual" in err
    assert "use sprc with blip2 or" in err


def test_a_model_and_an_encoder_are_one_too_many(clip, garments_folder, model_folder, tmp_path, dqecir):
    made = recipe(tmp_path, "sprc", {})
    code, _, err = dqecir(
        *("train", made, "--data", garments_folder, "--encoder", clip),
        *("--model", model_folder, "--out", tmp_path / "run"),
    )
    assert code == 1
    assert "not both" in err
