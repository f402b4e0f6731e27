"""Every recipe file is read, and its head says how to run it."""

import json
from pathlib import Path

import pytest
import yaml

from dqecir.errors import DataError
from dqecir.io.run_folder import claim
from dqecir.training.recipe import Recipe, read_pretraining_recipe, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path):
    text = path.read_text()
    read = read_pretraining_recipe if "classification" in yaml.safe_load(text) else read_recipe
    read(path)
    head = text.split("\n\n")[0] if "\n\n" in text else text
    assert f"recipes/{path.name}" in text
    assert head.startswith("#")
    assert "Hardware:" in text


def test_there_are_recipes():
    assert {"dqe", "contrastive", "pretrain-small"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: dqe\ntraning: {}\n", "did you mean 'training'"),
        ("method: dqe\ntraining: {epochs: -1}\n", "training.epochs"),
        ("method: dqe\nnegatives: {choose: midzone}\n", "negatives.choose"),
        ("just text\n", "must hold a map"),
        ("method: dqe\nmethod: covr\n", r"line 2, .* \(the key 'method' comes twice\): correct it there"),
        ("a: [\n", r"line 2, cannot be read as YAML \(expected the node content, .*\): correct it there"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_recipe(path)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_recipe(tmp_path / "none.yaml")


def test_a_run_folder_of_version_0_1_0_is_claimed_by_its_recipe(tmp_path):
    path = Path(__file__).parents[1] / "golden" / "17_config_0_1_0.json"
    recorded = json.loads(path.read_text())["notes"]["recipe"]
    assert recorded["negatives"]["pool_size"] == 256
    (tmp_path / "recipe.json").write_text(json.dumps(recorded))
    claim(tmp_path, "recipe.json", Recipe.model_validate(recorded), "run")
    other = {**recorded, "training": {**recorded["training"], "seed": 1}}
    with pytest.raises(DataError, match=r"another training\.seed"):
        claim(tmp_path, "recipe.json", Recipe.model_validate(other), "run")
