"""A shop's catalogue: what each column becomes, the whole command, and a command that was killed."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dqecir.cli import app
from dqecir.data.catalogue import read_catalogue
from dqecir.data.cells import UNKNOWN
from dqecir.errors import CatalogueError, DataError
from dqecir.evaluation.bootstrap import PairedGain
from dqecir.experiments.fit import gain as fit_gain
from dqecir.experiments.fit import steps
from dqecir.experiments.fit.column_use import plan_columns
from dqecir.experiments.fit.fit_data import LEAST_QUESTIONS, FitData
from dqecir.experiments.fit.gain import BEFORE, FITTED
from dqecir.experiments.fit.steps import fit_catalogue
from dqecir.language.own_words import vocabularies_for
from dqecir.language.parsing import Parser
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.model.composed_model import ComposedModel
from dqecir.search.retriever import ComposedRetriever
from dqecir.training.heads import HeadScore, fit_heads
from dqecir.training.loop import Trainer
from dqecir.training.recipe import read_recipe

RECIPE = """
method: dqe_values
options: {contrast_right_answers: left_out}
negatives: {choose: none}
triplets: {count: 100}
training: {steps: 9, batch_size: 16, precision: fp32, checkpoint_every: 2}
"""


def with_own_columns(garments):
    """Return the garments with columns of a shop's own: material goes with the sleeves."""
    count = len(garments.image_ids)
    known = {"long": "Wool", "short": "Cotton", "": "Linen"}
    material = [known.get(value, "Silk") for value in garments.attributes["sleeves"]]
    material[0] = "Mohair"
    return {
        "material": material,
        "price": [f"€ {10 + 7 * i % 90}.50" for i in range(count)],
        "sku": [f"{700 + i}" for i in range(count)],
        "title": [f"garment {i % 200}" for i in range(count)],
        "shop": ["here"] * count,
    }


@pytest.fixture(scope="session")
def shop(garments_folder, garments, tmp_path_factory):
    """Return the garments as a shop has them: a few columns that models know, and its own."""
    folder = tmp_path_factory.mktemp("shop") / "shop"
    folder.mkdir()
    shutil.copytree(garments_folder / "images", folder / "images")
    columns = {name: garments.attributes[name] for name in ("garment", "color", "sleeves")}
    columns |= with_own_columns(garments)
    with (folder / "attributes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns])
        writer.writerows(zip(garments.image_ids, *columns.values(), strict=True))
    return folder


@pytest.fixture(scope="session")
def fitted(shop, model_folder, tmp_path_factory):
    """Return a fit that nobody disturbed, by the command line."""
    place = tmp_path_factory.mktemp("fit")
    (place / "recipe.yaml").write_text(RECIPE)
    words = ["catalogue", "fit", shop, "--out", place / "out", "--model", model_folder]
    result = CliRunner().invoke(app, [*map(str, words), "--recipe", str(place / "recipe.yaml")])
    assert result.exit_code == 0, result.output
    assert "the fitted model" in result.output
    return place


def test_each_column_finds_its_use(garments):
    own = replace(garments, attributes={**garments.attributes, **with_own_columns(garments)})
    known = {"color": tuple(sorted(set(garments.attributes["color"]))), "neck": ("no such",)}
    plan = plan_columns(own, known, 24)
    kinds = {use.column: use.kind for use in plan.uses}
    assert kinds["color"] == kinds["neck"] == kinds["material"] == "attribute"
    assert kinds["price"] == "number"
    assert kinds["sku"] == kinds["title"] == kinds["shop"] == "left out"
    assert plan.columns["color"] == known["color"]
    assert set(plan.columns["neck"]) > {"round"}
    material = next(use for use in plan.uses if use.column == "material")
    assert "Mohair" not in material.values
    assert "Mohair" in material.note
    assert plan.catalogue.attributes["material"][0] == UNKNOWN
    assert plan.numbers["price"][:2].tolist() == [10.5, 17.5]


@pytest.mark.parametrize(
    ("column", "cells", "kind"),
    [
        ("year", lambda i: str(2020 + i % 4), "number"),
        ("size", lambda i: str(36 + i % 6), "attribute"),
        ("stock", lambda i: str(i % 60), "number"),
        ("weight", lambda i: str(i), "left out"),
        ("price", lambda i: str(i), "number"),
        ("product_code", lambda i: str(i % 3), "left out"),
    ],
)
def test_columns_of_numbers(garments, column, cells, kind):
    values = tuple(cells(i) for i in range(len(garments.image_ids)))
    own = replace(garments, attributes={"color": garments.attributes["color"], column: values})
    assert {use.column: use.kind for use in plan_columns(own, {}, 24).uses}[column] == kind


def test_nothing_to_learn_is_said_column_by_column(garments):
    own = replace(garments, attributes={"sku": with_own_columns(garments)["sku"]})
    says = r"add a column such as color whose values differ, or .*\n- sku: it looks like an id"
    with pytest.raises(DataError, match=says):
        plan_columns(own, {}, 24)
    nothing = {**garments.splits, "train": garments.splits["train"][:0]}
    with pytest.raises(DataError, match=r"no images to learn from \(split train\): add more images"):
        plan_columns(replace(garments, splits=nothing), {}, 24)


def test_texts_about_own_columns_are_understood():
    columns = {"color": ("blue", "red"), "material": ("Linen", "Wool"), "lined": ("no", "yes")}
    columns |= {"washable": ("no", "yes"), "shape": ("round", "square"), "sleeves": ("long", "short")}
    vocabularies = vocabularies_for(columns, [])
    parser = Parser(vocabularies, columns)
    assert parser.asked("is wool and red", {}) == {"material": {"Wool"}, "color": {"red"}}
    assert parser.asked("is square and has long sleeves", {}) == {"shape": {"square"}, "sleeves": {"long"}}
    assert parser.asked("the lined is yes", {}) == {"lined": {"yes"}}
    assert parser.asked("the washable is not yes", {}) == {"washable": {"no"}}


class Tokens:
    """A store in memory."""

    def __init__(self, tokens):
        self.tokens = tokens

    def __len__(self):
        return len(self.tokens)

    def gather(self, ids, views=None):
        return self.tokens[ids]


def test_heads_learn_new_columns_and_keep_what_they_know(model):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 3, (240, 2), generator=generator)
    tokens = torch.randn(240, 4, 16, generator=generator)
    for place in range(2):
        tokens[torch.arange(240), place, 5 * place + codes[:, place]] += 12
    train, dev = ((Tokens(tokens[part]), codes[part]) for part in (slice(0, 180), slice(180, 240)))
    first, first_scores = fit_heads(
        None,
        {"shape": ("a", "b", "c")},
        16,
        (train[0], codes[:180, :1]),
        (dev[0], codes[180:, :1]),
        0,
        quiet=True,
    )
    columns = {"brand": ("x", "y", "z"), "shape": ("a", "b", "c")}
    swapped = [1, 0]
    heads, scores = fit_heads(
        first, columns, 16, (train[0], train[1][:, swapped]), (dev[0], dev[1][:, swapped]), 0, quiet=True
    )
    assert scores["shape"].accuracy > 90
    assert scores["brand"].accuracy > 90 > scores["brand"].commonest
    assert not scores["brand"].kept
    assert first_scores["shape"].accuracy == 100  # which no further training can better
    assert scores["shape"].kept
    assert torch.equal(heads.queries[1], first.queries[0])
    assert torch.equal(heads.norm.weight, first.norm.weight)


def test_the_whole_command_leaves_a_searchable_index(fitted, shop):
    out = fitted / "out"
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert {"the fitted model", "the model before", "predicted attributes", "image_only", "text_only"} <= set(
        rows
    )
    assert "numbers filtered" in rows
    report = (out / "report.md").read_text()
    assert report.splitlines()[2] == "## Columns"
    picture, table, neither = report.splitlines()[4:7]
    assert picture.startswith("- searched by picture: ")
    assert "price" in table
    assert neither == "- searched not at all: sku, title"
    assert "points (95 % interval" in report
    html = (out / "report.html").read_text()
    assert html.index("searched by picture") < html.index("How good the answers are")
    for column in ("color", "material", "price", "sku"):
        assert f"- `{column}`: " in report
    assert report.count(" images): ") == 12
    assert "dqecir search --index" in report
    assert "<article>" in html
    model = ComposedModel.from_pretrained(out / "model")
    retriever = ComposedRetriever(model).open_index(out / "index")
    assert len(retriever.index) == 240
    image = next((shop / "images").iterdir())
    assert len(retriever.search(image, "is wool", k=5).hits) == 5


def test_a_killed_fit_ends_where_an_unbroken_one_does(fitted, shop, model_folder, tmp_path, monkeypatch):
    def fit():
        return fit_catalogue(shop, tmp_path / "out", model_folder, fitted / "recipe.yaml", quiet=True)

    whole = Trainer.train_step
    steps = []

    def killed(self, step):
        steps.append(step)
        if step == 5 and steps.count(5) == 1:
            raise KeyboardInterrupt
        return whole(self, step)

    monkeypatch.setattr(Trainer, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit()
    trained = (tmp_path / "out" / "heads" / "heads.safetensors").stat().st_mtime_ns
    with monkeypatch.context() as broken:
        broken.setattr(
            ComposedRetriever, "build_index", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            fit()
    record = json.loads((tmp_path / "out" / "fit.json").read_text())
    record["recipe"]["negatives"]["pool_size"] = 256  # as version 0.1.0 wrote it
    (tmp_path / "out" / "fit.json").write_text(json.dumps(record))
    rows = fit()
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
    assert (tmp_path / "out" / "heads" / "heads.safetensors").stat().st_mtime_ns == trained
    assert rows == json.loads((fitted / "out" / "metrics.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("gain", "said", "chosen"),
    [
        (PairedGain(4.0, 1.0, 7.0, 812), "The fitted model is better than the model before", FITTED),
        (PairedGain(0.2, -1.0, 1.4, 812), "It is not certain whether the fitted model is better", FITTED),
        (PairedGain(-0.2, -1.4, 1.0, 812), "It is not certain whether the fitted model is better", BEFORE),
        (PairedGain(0.0, 0.0, 0.0, 812), "It is not certain whether the fitted model is better", BEFORE),
        (PairedGain(-4.0, -7.0, -1.0, 812), "The fitted model is worse than the model before", BEFORE),
    ],
)
def test_the_better_model_makes_the_index(
    gain, said, chosen, fitted, shop, model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(fit_gain, "paired_gain", lambda *_: gain)
    out = shutil.copytree(fitted / "out", tmp_path / "out")
    fit_catalogue(shop, out, model_folder, fitted / "recipe.yaml", quiet=True)
    report = (out / "report.md").read_text()
    assert said in report
    assert "812 questions" in report
    assert f"The index is built with {chosen}" in report
    assert json.loads((out / "metrics.json").read_text())["gain"]["low"] == gain.low
    found = ComposedRetriever.from_pretrained(out / "model").open_index(out / "index").model
    expected = ComposedModel.from_pretrained(out / "run" / "best" if chosen == FITTED else model_folder)
    assert found.fingerprint == expected.fingerprint


def test_columns_that_pictures_do_not_show_are_left_to_the_table(shop, fitted):
    data = FitData(shop, fitted, None, 0, True, plan_columns(read_catalogue(shop), {}, 64), None, None)
    heads = AttributeHeads(HeadsConfig(token_width=8, columns=data.plan.columns))
    scores = {column: HeadScore(60, 50, kept=False) for column in data.plan.columns}
    scores["material"] = HeadScore(50, 50, kept=False)
    less, some = steps.without_unshown(data, heads, scores)
    assert "material" in data.plan.columns
    assert set(less.plan.columns) == set(some.config.columns) == set(data.plan.columns) - {"material"}
    assert set(less.plan.catalogue.attributes) == set(less.plan.columns)
    [use] = [use for use in less.plan.uses if use.column == "material"]
    assert use.note.startswith("pictures say no more of it than its commonest value")
    place, before = (list(one.config.columns).index("sleeves") for one in (some, heads))
    assert torch.equal(some.queries[place], heads.queries[before])
    nothing = {column: HeadScore(50, 50, kept=False) for column in data.plan.columns}
    assert steps.without_unshown(data, heads, nothing) == (data, heads)


def test_a_small_split_is_asked_five_hundred_questions(garments_folder, fitted, model):
    plan = plan_columns(read_catalogue(garments_folder), {}, 64)
    data = FitData(garments_folder, fitted, read_recipe(fitted / "recipe.yaml"), 0, True, plan, model, None)
    val = data.measuring_questions(model, "val")
    assert len(val.image_ids) < 60
    assert len(val.triplets) == LEAST_QUESTIONS


def test_an_out_of_something_else_is_refused(fitted, shop, model_folder, tmp_path):
    with pytest.raises(DataError, match="another recipe"):
        fit_catalogue(shop, fitted / "out", model_folder)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="holds files that are not a fit"):
        fit_catalogue(shop, tmp_path, model_folder)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_problems_of_the_catalogue_are_listed(shop, tmp_path, model_folder):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "attributes.csv").write_text("image,color\ngone.jpg,red\nlost.jpg,blue\n")
    with pytest.raises(CatalogueError, match=r"gone.jpg[^$]*lost.jpg"):
        fit_catalogue(folder, tmp_path / "out", model_folder)
    assert not (tmp_path / "out").exists()


def test_products_of_several_pictures_are_held_out_whole_and_their_sizes_left_out(garments):
    count = len(garments.image_ids)
    products = tuple(str(i // 3) for i in range(count))
    several = {"size": dict.fromkeys(range(count), ("S", "M"))}
    table = {**garments.attributes, "size": ("S, M",) * count}
    splits = {**garments.splits, "train": np.arange(count), "val": np.arange(0), "test": np.arange(0)}
    shop = replace(garments, attributes=table, several=several, products=products, splits=splits)
    split = steps.with_val(shop, 0).splits
    train, val = ({products[i] for i in split[name]} for name in ("train", "val"))
    assert val
    assert not train & val
    [size] = [use for use in plan_columns(shop, {}, 64).uses if use.column == "size"]
    assert (size.kind, size.note) == ("left out", "most products have several of its values")


def test_a_fit_by_dot_ends_in_an_index_of_one_vector_a_picture(shop, model_folder, tmp_path):
    recipe = RECIPE.replace("{contrast_right_answers", "{rule: dot, contrast_right_answers")
    (tmp_path / "recipe.yaml").write_text(recipe.replace("steps: 9", "steps: 3"))
    rows = fit_catalogue(shop, tmp_path / "out", model_folder, tmp_path / "recipe.yaml", quiet=True)
    assert rows["the fitted model"]["mAP@10"] >= 0
    retriever = ComposedRetriever.from_pretrained(tmp_path / "out" / "model")
    header = retriever.open_index(tmp_path / "out" / "index").index.header
    assert (header.score_rule, header.tokens) == ("dot", 1)
