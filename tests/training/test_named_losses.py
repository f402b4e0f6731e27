"""Losses and samplers that a recipe names: each trains, and differs from the default."""

import json

import pytest

from dqecir.settings import parse_settings
from dqecir.training.build import trainer_for
from dqecir.training.recipe import Recipe

PAIR = {"attributes": [], "ranking_weight": 0, "attribute_weight": 0}
CONTRAST = {**PAIR, "pair_weight": 0, "contrast_weight": 1}
MINED = {"choose": "around_target", "count": 4, "refresh_epochs": 0.2}


def trained(options, negatives, data, model, run):
    """Return the losses of three steps, and the number of mined negatives."""
    recipe = {
        "method": "dqe",
        "options": options,
        "negatives": negatives,
        "triplets": {"count": 96},
        "training": {"steps": 3, "batch_size": 16, "learning_rate": 0.001, "precision": "fp32"},
    }
    trainer_for(parse_settings(recipe, Recipe, "a test"), [data], model, run, quiet=True).fit()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.mark.parametrize(
    ("default", "options", "negatives"),
    [
        (CONTRAST, {"contrast": "hardness_weighted"}, {"choose": "none"}),
        (CONTRAST, {"contrast": "several_positives"}, {"choose": "none"}),
        (PAIR, {"pair": "grouped"}, MINED),
        (PAIR, {"pair": "preference"}, MINED),
    ],
    ids=["hardness", "several positives", "grouped", "preference"],
)
def test_a_named_loss_trains(default, options, negatives, garments_folder, model_folder, tmp_path):
    first, second = (
        trained({**default, **own}, negatives, garments_folder, model_folder, tmp_path / name)
        for name, own in (("plain", {}), ("named", options))
    )
    assert first and second
    assert [line["loss"] for line in first] != [line["loss"] for line in second]
    assert all(line["loss"] > 0 for line in second)
