"""The example of docs/adding-a-method.md, run unchanged."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dqecir.methods.method import METHODS
from dqecir.model.composed_model import ComposedModel
from dqecir.training.build import trainer_for
from dqecir.training.recipe import Recipe, read_recipe

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"


def block(language: str) -> str:
    """Return the first code block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def gated_sum(tmp_path):
    """Yield the example's file, imported as one of the methods, and unregister it afterwards."""
    path = tmp_path / "gated_sum.py"
    path.write_text(block("python"), encoding="utf-8")
    specification = importlib.util.spec_from_file_location("gated_sum", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules["gated_sum"] = module
    specification.loader.exec_module(module)
    yield module
    del METHODS["gated_sum"], sys.modules["gated_sum"]


def test_the_example_trains_from_its_recipe_and_is_loaded_again(
    gated_sum, garments_folder, model_folder, tmp_path
):
    path = tmp_path / "gated-sum.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    recipe = read_recipe(path)
    short = {**recipe.training.model_dump(), "steps": 3, "batch_size": 8, "precision": "fp32"}
    recipe = Recipe.model_validate({**recipe.model_dump(), "training": short})
    metrics = trainer_for(recipe, [garments_folder], model_folder, tmp_path / "run", quiet=True).fit()
    assert 0 <= metrics["mAP@10"] <= 100
    model = ComposedModel.from_pretrained(tmp_path / "run" / "last")
    assert isinstance(model.method, gated_sum.GatedSum)
    untrained = ComposedModel.from_pretrained(model_folder)
    assert not torch.equal(
        model.backbone.vision_projection.weight, untrained.backbone.vision_projection.weight
    )


def test_the_example_refuses_negatives_that_it_would_not_read(gated_sum):
    settings = yaml.safe_load(block("yaml"))
    settings["negatives"] = {"choose": "random"}
    with pytest.raises(ValueError, match=r"set negatives\.choose to none"):
        Recipe.model_validate(settings)


def test_the_page_names_a_contestant_that_a_comparison_accepts():
    from dqecir.experiments.compare.plan import Contestant

    rows = re.findall(r"```yaml\n(  - .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [Contestant.model_validate(row) for row in yaml.safe_load(rows[0])]
