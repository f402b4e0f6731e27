"""Training: it learns, it is reproducible, and a killed run continues as if it had not been killed."""

import copy
import csv
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dqecir.encoders.store import ReadAhead
from dqecir.errors import DataError
from dqecir.io.stopwatch import Stopwatch
from dqecir.methods.value_vectors import ValueSlices
from dqecir.model.composed_model import ComposedModel
from dqecir.settings import parse_settings
from dqecir.training.build import trainer_for
from dqecir.training.data import epoch_order, with_single_captions
from dqecir.training.loop import Evaluator, parameter_groups
from dqecir.training.operations import training_cost
from dqecir.training.recipe import Recipe
from dqecir.training.schedules import cosine_rate

GOLDEN = Path(__file__).parents[1] / "golden"
ZONE = {"choose": "mid_zone", "bounds": "quantile", "low": 0.05, "high": 0.5, "refresh_epochs": 1}


def recipe_of(**changes) -> Recipe:
    settings = {
        "method": "dqe",
        "negatives": ZONE,
        "triplets": {"per_reference": 1},
        "training": {
            "steps": 14,
            "batch_size": 16,
            "precision": "fp32",
            "learning_rate": 0.002,
            "checkpoint_every": 3,
            "evaluate_every": 100,
            **changes.pop("training", {}),
        },
        **changes,
    }
    return parse_settings(settings, Recipe, "recipe")


@pytest.fixture
def run(garments_folder, model_folder, tmp_path):
    def start(recipe, name="run"):
        return trainer_for(
            recipe, [garments_folder], model_folder, tmp_path / name, tmp_path / "tokens", True
        )

    return start


def weights_of(folder):
    return ComposedModel.from_pretrained(folder).method.state_dict()


def same(one, other) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_leaves_models_logs_and_its_recipe(run, tmp_path):
    metrics = run(recipe_of()).fit()
    assert metrics["mAP@10"] >= 0
    folder = tmp_path / "run"
    assert {"best", "last", "log.jsonl", "recipe.json", "done.json", "tensorboard"} <= {
        p.name for p in folder.iterdir()
    }
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"train", "mining", "dev"} <= {row["what"] for row in log}
    mined = next(row for row in log if row["what"] == "mining")
    assert {"zone_size_q50", "fallbacks", "false_negatives", "target_rank_q50"} <= set(mined)
    assert json.loads((folder / "recipe.json").read_text())["method"] == "dqe"
    assert ComposedModel.from_pretrained(folder / "last").notes["recipe"]["training"]["steps"] == 14


@pytest.mark.parametrize("negatives", [ZONE, {**ZONE, "warm_up": "in_batch"}])
def test_reading_ahead_changes_nothing(run, tmp_path, negatives, monkeypatch):
    """Over refreshes of the negatives, checkpoints and the end of an epoch."""
    readers = []
    read = ReadAhead.read
    monkeypatch.setattr(
        ReadAhead, "read", lambda *one: readers.append(threading.current_thread()) or read(*one)
    )
    recipe = recipe_of(negatives=negatives, options={"contrast_weight": 1.0})
    for name, ahead in (("plain", False), ("ahead", True)):
        trainer = run(recipe, name)
        trainer.reads_ahead = ahead
        trainer.fit()
    own = readers.count(threading.main_thread())
    # Beside the first step, those that begin with a refresh read for themselves.
    assert own == trainer.steps + 1 + (trainer.steps - 1) // trainer.refresh_steps
    assert len(readers) == 2 * trainer.steps
    assert same(weights_of(tmp_path / "plain" / "last"), weights_of(tmp_path / "ahead" / "last"))


@pytest.mark.parametrize(
    "negatives", [ZONE, {"choose": "random"}, {"choose": "steepest_drops", "refresh_epochs": 0.4}]
)
def test_a_killed_run_ends_where_an_unbroken_one_does(run, tmp_path, negatives, monkeypatch):
    recipe = recipe_of(negatives=negatives)
    run(recipe, "whole").fit()
    broken = run(recipe, "broken")
    step = type(broken).train_step

    def killed(self, number):
        if number == 8:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(type(broken), "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    monkeypatch.undo()
    resumed = run(recipe, "broken")
    resumed.fit()
    assert resumed.step == 14
    assert same(weights_of(tmp_path / "whole" / "last"), weights_of(tmp_path / "broken" / "last"))
    assert not (tmp_path / "broken" / "state.pt").exists()


def test_an_accelerator_is_timed_by_the_clock_without_what_is_no_step(run, tmp_path, monkeypatch):
    trainer = run(recipe_of(training={"steps": 3, "evaluate_every": 1e-6}))
    clock = {"now": 0.0}

    def pass_by(seconds: float) -> None:
        clock["now"] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: clock["now"])
    trainer.watch = Stopwatch(on_cpu=False)
    trainer.evaluator = Evaluator(lambda model: pass_by(400) or {"mAP@10": 0.0})
    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda number: pass_by(2) or step(number))
    trainer.fit()
    done = json.loads((tmp_path / "run" / "done.json").read_text())
    assert "cpu_seconds" not in done
    assert done["gpu_seconds"] == 3 * 2
    assert clock["now"] > 3 * 400


def test_a_device_that_is_still_at_a_step_is_not_done(monkeypatch):
    now = iter([0.0, 5.0, 10.0, 12.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Stopwatch(on_cpu=False)
    for _ in range(2):
        watch.start()
        watch.returned()
    assert watch.seconds == 0.0
    watch.stop()
    watch.stop()
    assert watch.seconds == 5.0
    watch.start()
    watch.stop()
    assert (watch.seconds, watch.name) == (7.0, "gpu_seconds")


@pytest.mark.parametrize(("data", "epochs"), [("fashioniq", 30), ("cirr", 50)])
def test_negatives_are_refreshed_in_the_epochs_in_which_qure_does(run, tmp_path, data, epochs, monkeypatch):
    published = json.loads((GOLDEN / "12_text_pad_schedule.json").read_text())["qure_rerank_epochs"][data]
    # Six times a run, as published, and first of all at random.
    negatives = {"choose": "steepest_drops", "refresh_epochs": epochs // 6, "warm_up": "random"}
    settings = {"epochs": epochs, "steps": None, "batch_size": 32, "checkpoint_every": 1000}
    trainer = run(recipe_of(method="qure", negatives=negatives, training=settings))
    monkeypatch.setattr(trainer, "train_step", lambda step: {"loss": torch.tensor(0.0)})
    monkeypatch.setattr(trainer.miner, "refresh", lambda *_: SimpleNamespace(as_dict=dict))
    trainer.fit()
    assert trainer.epoch_steps > 1 and trainer.step == epochs * trainer.epoch_steps
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    found = [line["step"] for line in log if line["what"] == "mining"]
    assert found == [epoch * trainer.epoch_steps for epoch in published]


def test_another_recipe_does_not_resume(run, monkeypatch):
    trainer = run(recipe_of())
    monkeypatch.setattr(trainer, "train_step", lambda step: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    with pytest.raises(DataError, match=r"a run with another training\.learning_rate \(0\.002, not 0\.1\)"):
        run(recipe_of(training={"learning_rate": 0.1})).fit()


def test_a_finished_run_is_not_written_over(run):
    recipe = recipe_of(training={"steps": 2})
    run(recipe).fit()
    with pytest.raises(DataError, match="finished run"):
        run(recipe).fit()


def test_seeds_decide(run, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(recipe_of(training={"seed": seed, "steps": 4}), name).fit()
    one, again, other = (weights_of(tmp_path / name / "last") for name in "abc")
    assert same(one, again)
    assert not same(one, other)


def test_new_parameters_are_drawn_from_the_seed_of_the_recipe(run):
    recipe = recipe_of(method="tirg", negatives={"choose": "none"})
    other = recipe.with_training(seed=1)
    first, again, another = (run(one).model.method.state_dict() for one in (recipe, recipe, other))
    assert same(first, again)
    assert not same(first, another)


def test_best_is_the_model_with_the_highest_metric_of_the_evaluator(run, tmp_path):
    trainer = run(recipe_of(training={"steps": 3, "evaluate_every": 1e-6}))
    values = iter([1.0, 3.0, 2.0])
    measured = []

    def measure(model):
        measured.append(copy.deepcopy(model.method.state_dict()))
        return {"mAP@10": 0.0, "chosen": next(values)}

    trainer.evaluator = Evaluator(measure, "chosen")
    assert trainer.fit() == {"mAP@10": 0.0, "chosen": 2.0}
    assert same(weights_of(tmp_path / "run" / "best"), measured[1])
    assert same(weights_of(tmp_path / "run" / "last"), measured[2])


def test_contrast_learns(run, tmp_path):
    options = {
        "attributes": [],
        "pair_weight": 0,
        "ranking_weight": 0,
        "attribute_weight": 0,
        "contrast_weight": 1,
    }
    recipe = recipe_of(
        options=options, negatives={"choose": "none"}, training={"steps": 150, "learning_rate": 0.005}
    )
    run(recipe).fit()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if row["what"] == "train"]
    assert losses[-1] < losses[0] - 0.2


def test_heads_learn_from_the_table(run, tmp_path):
    recipe = recipe_of(
        method="dqe_heads", negatives={"choose": "none"}, training={"steps": 60, "learning_rate": 0.005}
    )
    run(recipe).fit()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    values = [row["values"] for row in log if row["what"] == "train"]
    assert values[-1] < values[0] - 0.1


def test_the_tower_stays_frozen(run, model_folder, tmp_path):
    run(recipe_of()).fit()
    before, after = (
        ComposedModel.from_pretrained(model_folder),
        ComposedModel.from_pretrained(tmp_path / "run" / "last"),
    )
    assert before.tower_fingerprint == after.tower_fingerprint
    assert before.fingerprint != after.fingerprint


def test_a_loss_that_is_not_a_number_stops_the_run(run):
    with pytest.raises(DataError, match="not a number"):
        run(recipe_of(training={"learning_rate": 1e30, "gradient_clip": None})).fit()


def test_two_catalogues_are_trained_on_together(garments_folder, model_folder, tmp_path):
    trainer = trainer_for(
        recipe_of(), [garments_folder, garments_folder], model_folder, tmp_path / "r", None, True
    )
    assert len(trainer.part_sizes) == 2
    for step in range(3):
        queries = trainer.batch(step) if step else None
        trainer.refresh_negatives(step)
        assert queries is None or len(queries.targets) == 16
    trainer.fit()


def test_batches_stay_within_a_catalogue_and_cover_an_epoch():
    batches = epoch_order([20, 33], 8, seed=0, epoch=0)
    assert all((batch < 20).all() or (batch >= 20).all() for batch in batches)
    assert len(batches) == 2 + 4
    drawn = sorted(number for batch in batches for number in batch)
    assert len(set(drawn)) == len(drawn) == 48


def test_the_rate_rises_and_falls():
    rates = [cosine_rate(step, 100, 10, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_follows_its_schedule(run, tmp_path):
    schedule = {"kind": "one_cycle", "peak": 0.5, "start_divisor": 10, "end_divisor": 1}
    run(recipe_of(training={"schedule": schedule, "steps": 21})).fit()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["rate"] for row in log if row["what"] == "train"}
    assert rates[1] == pytest.approx(0.002 / 10)
    assert rates[21] == pytest.approx(0.002 / 10)


def test_four_way_asks_by_both_orders_and_by_either_caption_alone(run, tmp_path):
    trainer = run(recipe_of(negatives={"choose": "random"}, training={"captions": "four_way"}))
    triplets, count = trainer.data.benchmark.triplets, len(trainer.data)
    method = trainer.model.method
    for query in (0, 1, count - 1):
        first, last = triplets[query].captions
        wanted = [method.text(order) for order in ((first, last), (last, first), (first,), (last,))]
        assert [trainer.texts.texts[query + reading * count] for reading in range(4)] == wanted
    trainer.refresh_negatives(0)
    batches = [text for step in range(4) for text in trainer.batch(step).text.texts]
    drawn = {trainer.texts.texts.index(text) // count for text in batches}
    assert drawn == {0, 1, 2, 3}
    assert len(trainer.data.texts.texts) == 2 * count


def test_four_way_never_asks_by_an_empty_caption(run):
    trainer = run(recipe_of(negatives={"choose": "random"}, training={"captions": "four_way"}))
    benchmark = trainer.data.benchmark
    blank = replace(benchmark.triplets[0], captions=("is red", " . "))
    data = replace(trainer.data, benchmark=replace(benchmark, triplets=(blank, *benchmark.triplets[1:])))
    method, encoder = trainer.model.method, trainer.model.text_encoder
    texts, _ = with_single_captions(data, method, encoder)
    rows = [texts.texts[reading * len(data)] for reading in (2, 3)]
    assert rows == ["Is red", method.text(blank.captions)]
    more = replace(blank, captions=("is red", "is long", "is new"))
    with pytest.raises(DataError, match="choose two_way"):
        with_single_captions(replace(data, benchmark=replace(benchmark, triplets=(more,))), method, encoder)


def test_operations_count_steps_and_mining(run):
    plain = training_cost(run(recipe_of(negatives={"choose": "random"}), "a"))
    mined = training_cost(run(recipe_of(), "b"))
    assert plain.refresh == 0
    assert mined.refresh > 0
    assert mined.step == pytest.approx(plain.step, rel=0.05)


def test_decay_betas_and_epsilon_are_those_of_the_recipe(model):
    method = model.with_method("qure", {}).method
    groups = parameter_groups(method, 1e-3, 0.05, [], 1.0)
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}
    everything = parameter_groups(method, 1e-3, 0.05, [], 1.0, decay_everything=True)
    assert [group["weight_decay"] for group in everything] == [0.05]
    decayed = {id(parameter) for group in everything for parameter in group["params"]}
    assert id(method.backbone.temperature) in decayed


def test_the_optimiser_takes_its_settings(garments_folder, model_folder, tmp_path):
    training = {"betas": [0.9, 0.98], "epsilon": 1e-7, "steps": 1, "batch_size": 8}
    recipe = Recipe.model_validate({"method": "sprc", "negatives": {"choose": "none"}, "training": training})
    trainer = trainer_for(recipe, [garments_folder], model_folder, tmp_path / "run", quiet=True)
    group = trainer.optimizer.param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.9, 0.98), 1e-7)


def with_columns(garments_folder, folder, renamed):
    """Return the catalogue with renamed columns, without those mapped to None."""
    folder.mkdir()
    (folder / "images").symlink_to(garments_folder / "images")
    rows = list(csv.DictReader((garments_folder / "attributes.csv").open()))
    names = {name: renamed.get(name, name) for name in rows[0]}
    with (folder / "attributes.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow([name for name in names.values() if name])
        writer.writerows([[row[own] for own, name in names.items() if name] for row in rows])
    return folder


VALUES = {"method": "dqe_values", "negatives": {"choose": "none"}}


def test_columns_that_no_catalogue_has_are_not_compared(garments_folder, model_folder, tmp_path):
    folder = with_columns(garments_folder, tmp_path / "shop", {"fit": None, "pattern_color": None})
    trainer = trainer_for(recipe_of(**VALUES), [folder], model_folder, tmp_path / "run", quiet=True)
    method = trainer.model.method
    assert set(method.columns) == {"garment", "color", "pattern", "sleeves", "neck", "length", "print"}
    assert set(method.options.columns) == set(method.columns)
    whole = [garments_folder, folder]
    trainer = trainer_for(recipe_of(**VALUES), whole, model_folder, tmp_path / "both", quiet=True)
    assert {"fit", "pattern_color"} <= set(trainer.model.method.columns)


def test_one_vector_is_trained_and_mined(garments_folder, model_folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(ValueSlices, "fit", lambda self, shown: seen.append(len(shown[0])))
    options = {"rule": "dot", "pair_weight": 0.5}
    mined = {"choose": "mid_zone", "bounds": "quantile", "low": 0.0, "high": 0.5, "refresh_epochs": 0.5}
    recipe = recipe_of(method="dqe_values", options=options, negatives=mined, training={"steps": 6})
    trainer = trainer_for(recipe, [garments_folder], model_folder, tmp_path / "run", quiet=True)
    assert seen == [len(trainer.data.store)]
    trainer.fit()
    assert any(json.loads(line)["what"] == "mining" for line in (tmp_path / "run" / "log.jsonl").open())
    again = ComposedModel.from_pretrained(tmp_path / "run" / "best")
    assert again.method.score_rule == "dot" and again.method.target_shape[0] == 1


def test_what_sources_hold_out_is_dev_and_the_columns_compared_are_asked(
    garments_folder, garments, model_folder, tmp_path
):
    columns = ["color", "garment"]
    sources = [{"columns": {name: name for name in (*columns, "print")}, "held_out": 0.25}, {"columns": {}}]
    sources[1] = {**sources[0], "held_out": 0.0, "views": 1}
    recipe = recipe_of(
        **VALUES, options={"columns": columns}, sources=sources, training={"views": 2, "steps": 2}
    )
    folders = [garments_folder, garments_folder]
    trainer = trainer_for(recipe, folders, model_folder, tmp_path / "run", quiet=True)
    train = len(garments.split("train"))
    assert len(trainer.data.benchmark.image_ids) == train - int(0.25 * train) + train
    assert set(trainer.data.benchmark.attributes) == set(columns)
    tokens = tmp_path / "run" / "tokens"
    assert (tokens / "0-dev").exists() and not (tokens / "1-dev").exists()
    assert [store.views for store in trainer.data.store.stores] == [2, 1]
    trainer.fit()


def test_sources_that_hold_out_nothing_are_refused(garments_folder, model_folder, tmp_path):
    recipe = recipe_of(sources=[{"columns": {"color": "color"}}])
    with pytest.raises(DataError, match="sources hold out no picture for dev"):
        trainer_for(recipe, [garments_folder], model_folder, tmp_path / "run", quiet=True)


def test_a_catalogue_of_which_the_heads_know_nothing_is_refused(garments_folder, model_folder, tmp_path):
    header = (garments_folder / "attributes.csv").read_text().splitlines()[0].split(",")
    renamed = {name: f"{name}_x" for name in header if name not in ("image", "split")}
    folder = with_columns(garments_folder, tmp_path / "other", renamed)
    with pytest.raises(DataError, match="none of these columns"):
        trainer_for(recipe_of(**VALUES), [folder], model_folder, tmp_path / "run", quiet=True)


def test_tokens_may_be_kept_in_a_byte_each_and_a_large_tower_by_name(
    garments_folder, model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("dqecir.training.loop.BY_REFERENCE", 0)
    recipe = recipe_of(training={"steps": 3, "tokens": "int8"})
    trainer = trainer_for(recipe, [garments_folder], model_folder, tmp_path / "run", quiet=True)
    assert 0 < trainer.data.store.relative_error < 0.05
    trainer.fit()
    state = json.loads((tmp_path / "run" / "tokens" / "0-train" / "state.json").read_text())
    assert "int8" in json.dumps(state)
    config = json.loads((tmp_path / "run" / "last" / "config.json").read_text())
    assert config["tower"]["weights"] == str(model_folder.resolve())
    again = ComposedModel.from_pretrained(tmp_path / "run" / "last")
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            again.backbone.image_tokens(pixels), trainer.model.eval().backbone.image_tokens(pixels)
        )
