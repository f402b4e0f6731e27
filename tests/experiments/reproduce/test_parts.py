"""When a number counts as reproduced, which files a server accepts, and the recipes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dqecir.data.annotations import Question, Questions
from dqecir.data.images import Preprocessing
from dqecir.errors import DataError
from dqecir.evaluation.submission import Rankings, validate, write_submissions
from dqecir.experiments.reproduce.material import start_of
from dqecir.experiments.reproduce.measuring import Conditions, MeasuredRow
from dqecir.experiments.reproduce.published_rows import NAMES, PublishedRow, compare, published_rows
from dqecir.methods.method import method_named
from dqecir.training.recipe import read_recipe

RECIPES = sorted((Path(__file__).parents[3] / "recipes" / "reproduce").glob("*.yaml"))


def published(**changes) -> PublishedRow:
    row = {
        "method": "QuRe",
        "variant": "BLIP-2",
        "benchmark": "fashioniq",
        "split": "val",
        "gallery": "original",
        "reference_masked": False,
        "metrics": {"dress R@10": 40.0, "shirt R@10": 50.0, "toptee R@10": 60.0, "R@10": 50.0},
        "source": "a paper",
        "checked": "arithmetic",
    }
    return PublishedRow.model_validate({**row, **changes})


def measured(value: float, **changes) -> MeasuredRow:
    conditions = {"protocol": "fashioniq", "split": "val", "gallery": "original", "reference": "not masked"}
    metrics = {"dress/R@10": 45.0, "R@10": value, "R@1": 7.0}
    return MeasuredRow(
        "qure", "best", Conditions(**{**conditions, "captions": "c1 and c2", **changes}), metrics
    )


def verdict(theirs: PublishedRow, ours: MeasuredRow, trained_on="fashioniq", missing=0) -> str:
    (one,) = compare([theirs], ours, "qure", "fashioniq", trained_on=trained_on, missing=missing)
    return one.verdict


def test_means_within_a_point_are_reproduced():
    # A single category may be further off: it has a third of the questions.
    assert verdict(published(), measured(49.01)) == "reproduced: R@10 within 1.0 points"
    assert verdict(published(), measured(51.01)).startswith("not reproduced: R@10 off by more than 1.0")
    assert verdict(published(reference_masked=None), measured(50)).endswith("(masking not stated there)")


@pytest.mark.parametrize(
    ("theirs", "ours", "others", "obstacle"),
    [
        ({"split": "test"}, {}, {}, "published on test, measured on val"),
        ({"gallery": "VAL split"}, {}, {}, "their gallery is VAL split, ours original"),
        ({"reference_masked": True}, {}, {}, "their reference is masked, unlike ours"),
        ({}, {"reference": "masked"}, {}, "their reference is not masked, unlike ours"),
        ({}, {}, {"trained_on": "cirr"}, "theirs is trained on fashioniq, ours on cirr"),
        ({}, {}, {"trained_on": None}, "theirs is trained on fashioniq, ours on other data"),
        ({"variant": "zero-shot"}, {}, {}, "theirs is zero-shot, ours trained on fashioniq"),
        ({}, {}, {"missing": 3}, "3 images are missing here"),
    ],
)
def test_what_stands_in_the_way_of_a_comparison(theirs, ours, others, obstacle):
    assert verdict(published(**theirs), measured(50, **ours), **others) == f"not comparable: {obstacle}"


def test_numbers_that_others_report_are_not_compared_with():
    row = published(variant="reported by the authors of DQE-CIR")
    assert compare([row], measured(50), "qure", "fashioniq", trained_on="fashioniq", missing=0) == []


def test_the_published_list():
    rows = published_rows()
    assert {row.method for row in rows} == set(NAMES.values())
    (dqe,) = [row for row in rows if (row.method, row.benchmark) == ("DQE-CIR", "fashioniq")]
    # Its printed mean contradicts its categories.
    assert (dqe.metrics["R@50"], dqe.expected()["R@50"]) == (75.94, 74.94)
    assert dqe.expected()["R@10"] == 54.6


@pytest.fixture
def submitted(tmp_path):
    """Return CIRR's two files for two questions over 60 images, and the questions."""
    questions = Questions(
        "cirr",
        "test1",
        tuple(f"image-{n}" for n in range(60)),
        tuple(Path(f"{n}.png") for n in range(60)),
        {"all": np.arange(60)},
        tuple(Question(str(n), n, ("is new",), "all", (10, 11, 12, 13, 14)) for n in range(2)),
        True,
    )
    found = tuple(tuple(image for image in range(60) if image != n)[:50] for n in range(2))
    rankings = Rankings(questions, found, ((10, 11, 12), (14, 13, 12)))
    return write_submissions(tmp_path, rankings), questions


def test_what_the_server_takes(submitted):
    paths, questions = submitted
    facts = validate(paths, questions)
    assert [(one["questions"], one["answers"]) for one in facts.values()] == [(2, 50), (2, 3)]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (0, {"version": "rc1"}, "'version' should be 'rc2'"),
        (1, {"metric": "recall"}, "'metric' should be 'recall_subset'"),
        (0, {"7": []}, "1 questions are missing or too many"),
        (0, {"0": [f"image-{n}" for n in range(1, 50)]}, "question 0 needs 50 different answers"),
        (0, {"0": ["image-1"] * 50}, "question 0 needs 50 different answers"),
        (0, {"0": [f"image-{n}" for n in range(50)]}, "names 'image-0', which is no candidate"),
        (1, {"1": ["image-10", "image-11", "image-20"]}, "names 'image-20', which is no candidate"),
    ],
)
def test_what_the_server_would_refuse(submitted, file, change, message):
    paths, questions = submitted
    paths[file].write_text(json.dumps({**json.loads(paths[file].read_text()), **change}))
    with pytest.raises(DataError, match=message):
        validate(paths, questions)


@pytest.mark.parametrize(("method", "squash"), [("dqe", False), ("covr2", True)])
def test_pictures_are_prepared_as_the_method_has_them(model, tmp_path, method, squash):
    public = replace(model, preprocessing=Preprocessing(size=32, squash=True))
    folder = str(public.save_pretrained(tmp_path / "public"))
    prepared = start_of(folder, method_named(method)).preprocessing
    assert (prepared.squash, prepared.pad_ratio) == (squash, 1.25)
    own = str(model.save_pretrained(tmp_path / "own"))
    assert start_of(own, method_named(method)).preprocessing == model.preprocessing


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_as_published(path):
    recipe = read_recipe(path)
    long = {"dqe-fashioniq": (30, 5, 5e-6, "targets"), "dqe-cirr": (50, 8, 1e-5, "gallery")}[path.stem]
    training, negatives = recipe.training, recipe.negatives
    assert (training.epochs, negatives.refresh_epochs, training.learning_rate, negatives.corpus) == long
    assert (training.batch_size, training.final_rate, training.captions) == (32, 0.01, "fixed")
    assert (negatives.bounds, negatives.low, negatives.high) == ("absolute", 0.05, 0.15)
    assert f"recipes/reproduce/{path.name}" in path.read_text()
