"""A whole comparison on a tiny model: tables, resuming, and errors."""

import copy
import csv
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dqecir.errors import DataError
from dqecir.experiments.compare import runner
from dqecir.experiments.compare.context import ComparisonContext
from dqecir.experiments.compare.jobs import fixed_steps, operations
from dqecir.experiments.compare.plan import ComparisonRecipe, read_comparison, slug, stages
from dqecir.experiments.compare.results_page import markdown, spread
from dqecir.experiments.compare.runner import compare
from tests.conftest import PATIENCE

TRAINING = {"learning_rate": 0.001, "precision": "fp32"}
CONTRAST = {
    "method": "dqe",
    "options": {
        "attributes": [],
        "pair_weight": 0,
        "ranking_weight": 0,
        "attribute_weight": 0,
        "contrast_weight": 1,
    },
    "negatives": {"choose": "none"},
    "training": TRAINING,
}
MINED = {
    "method": "dqe",
    "negatives": {"choose": "mid_zone", "bounds": "quantile", "low": 0.1, "high": 0.5},
    "training": TRAINING,
}
COMPARISON = {
    "name": "tiny",
    "reference": "contrast",
    "triplets": 96,
    "questions": 40,
    "confusable": 12,
    "steps": 4,
    "batch_size": 16,
    "refreshes": 1,
    "seeds": [0, 1],
    "search": {"factors": [1.0, 3.0], "questions": 30},
    "baselines": ["image_plus_text"],
    "contestants": [
        {"title": "contrast", "recipes": ["contrast.yaml"]},
        {"title": "Mined, in two stages", "recipes": ["contrast.yaml", "mined.yaml"]},
    ],
}


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "contrast.yaml").write_text(yaml.safe_dump(CONTRAST))
    (folder / "mined.yaml").write_text(yaml.safe_dump(MINED))
    (folder / "compare").mkdir()
    path = folder / "compare" / "tiny.yaml"
    path.write_text(yaml.safe_dump(COMPARISON))
    return path


@pytest.fixture(scope="module")
def finished(recipe_file, garments_folder, model_folder, tmp_path_factory):
    """Return a finished comparison: (its result, its folder)."""
    out = tmp_path_factory.mktemp("compared") / "out"
    return compare(recipe_file, garments_folder, out, model=model_folder, processes=1), out


def test_every_contestant_stands_in_both_budgets_with_every_seed(finished):
    result, _ = finished
    for row in result["contestants"].values():
        for share in row["budgets"].values():
            assert [run["seed"] for run in share["runs"]] == [0, 1]
            for run in share["runs"]:
                measured = {"R@10", "mAP@10", "R-precision", "told apart", "R@10 text alone"}
                assert measured | {"mAP", "nDCG@10"} <= set(run["metrics"])
                robust = {"hard negatives@10", "composition gap", "paraphrase spread"}
                assert robust <= set(run["metrics"])
        assert len(row["parameters"]) == len(row["step_operations"]) and min(row["parameters"]) > 0
        assert set(row["search"]["dev"]) == {1.0, 3.0}
    assert {"image plus text", "oracle, full"} <= set(result["fixed"])


def test_steps_are_fixed_by_operations_with_refreshes_paid_for(finished):
    result, _ = finished
    mined = result["contestants"]["Mined, in two stages"]
    budget = result["contestants"]["contrast"]["budgets"]["operations"]["operations"]
    assert mined["budgets"]["steps"]["steps"] == [2, 2]
    assert mined["refresh_operations"][0] == 0 < mined["refresh_operations"][1]
    # A stage is never shorter than one step, whatever its refresh costs.
    assert (
        mined["budgets"]["operations"]["operations"] <= budget or 1 in mined["budgets"]["operations"]["steps"]
    )


def test_the_tables_hold_the_numbers_of_the_runs(finished):
    result, out = finished
    rows = list(csv.DictReader((out / "results.csv").open()))
    for title, row in result["contestants"].items():
        values = [run["metrics"]["mAP@10"] for run in row["budgets"]["operations"]["runs"]]
        written = [
            float(line["value"])
            for line in rows
            if line["ranked by"] == title and line["budget"] == "operations" and line["metric"] == "mAP@10"
        ]
        assert written == pytest.approx(values, rel=1e-5)
        assert f"| {title} | " in (out / "results.md").read_text()
        assert spread(values) in "\n".join(markdown(result))
    for name in ("map.png", "confusion.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "results.json").read_text())["name"] == "tiny"


def test_a_row_without_questions_by_requested_attribute_is_left_out(finished):
    result = copy.deepcopy(finished[0])

    def rows():
        """Return first cell -> the others, of the table by requested attribute, equal steps."""
        lines = markdown(result)
        start = next(n for n, line in enumerate(lines) if line.startswith("By requested attribute"))
        table = lines[start + 2 : lines.index("", start + 2)]
        return {
            cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
            for cells in (line.split("|") for line in table)
        }

    runs = result["contestants"]["contrast"]["budgets"]["steps"]["runs"]
    first = rows()[""][0]
    assert first.endswith(", R@10")
    key = "asks of " + first.replace(", ", "/")
    assert rows()["contrast"][0] == spread([run["metrics"][key] for run in runs])
    assert rows()["*image plus text*"][0] == f"{result['fixed']['image plus text'][key]:.1f}"
    for run in runs:
        run["metrics"] = {name: value for name, value in run["metrics"].items() if name != key}
    assert "contrast" not in rows() and "Mined, in two stages" in rows()


def test_a_stopped_comparison_runs_what_is_missing_and_gives_the_same_table(
    finished, recipe_file, garments_folder, model_folder
):
    result, out = finished
    lost = out / "runs" / f"{slug('contrast')}-steps-1.json"
    kept = out / "runs" / f"{slug('contrast')}-steps-0.json"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    again = compare(recipe_file, garments_folder, out, model=model_folder, processes=1)
    assert kept.stat().st_mtime_ns == before
    for title, row in result["contestants"].items():
        for budget, share in row["budgets"].items():
            metrics = [run["metrics"] for run in again["contestants"][title]["budgets"][budget]["runs"]]
            assert metrics == [run["metrics"] for run in share["runs"]]


def timeless(result):
    """Return a result as it would be if nothing took time."""
    result = copy.deepcopy(result)
    result["cpu_seconds"] = {"search": 0.0, "training": 0.0}
    for row in result["contestants"].values():
        for part in (row["search"], *(run for share in row["budgets"].values() for run in share["runs"])):
            part["cpu_seconds"] = 0.0
    return result


def test_a_comparison_that_was_killed_ends_in_the_table_of_an_unbroken_one(
    finished, recipe_file, garments_folder, model_folder, tmp_path
):
    out = tmp_path / "out"
    arguments = ["compare", recipe_file, "--data", garments_folder, "--model", model_folder, "--out", out]
    # As the command, but that it waits to be killed once two runs are asked for and the first is done.
    code = (
        "import signal\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from dqecir.cli import main\n"
        "submit, runs = ProcessPoolExecutor.submit, []\n"
        "def submit_two(pool, work, *arguments):\n"
        "    future = submit(pool, work, *arguments)\n"
        "    runs.extend([future] * (work.__name__ == 'train_and_measure'))\n"
        "    if len(runs) == 2:\n"
        "        runs[0].result()\n"
        "        signal.pause()\n"
        "    return future\n"
        "ProcessPoolExecutor.submit = submit_two\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, *map(str, arguments), "--processes", "1"]
    # A group of its own, so that its workers are killed with it in one blow.
    killed = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        while not (done := list(out.glob("runs/*.json"))):
            assert killed.poll() is None
            time.sleep(0.01)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert killed.returncode == -signal.SIGKILL and not (out / "results.json").exists()
    before = {path: path.stat().st_mtime_ns for path in done}
    again = compare(recipe_file, garments_folder, out, model=model_folder, processes=1)
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert timeless(again) == timeless(finished[0])
    assert markdown(timeless(again)) == markdown(timeless(finished[0]))


def test_workers_leave_with_a_parent_that_was_killed():
    code = (
        "import multiprocessing, time, os, sys\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from dqecir.experiments.compare.runner import leave_with_parent\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), leave_with_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 600)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    # The worker holds the other end until it ends.
    ended, _, _ = select.select([parent.stdout], [], [], PATIENCE)
    if not ended:
        os.kill(worker, signal.SIGKILL)
    assert ended, "the worker went on"
    assert parent.stdout.read() == ""
    parent.stdout.close()


def test_a_folder_of_another_comparison_is_refused(finished, recipe_file, garments_folder, model_folder):
    _, out = finished
    other = recipe_file.with_name("other.yaml")
    other.write_text(yaml.safe_dump({**COMPARISON, "steps": 5}))
    with pytest.raises(DataError, match=r"holds a comparison with another settings\.steps \(4, not 5\)"):
        compare(other, garments_folder, out, model=model_folder, processes=1)


def test_a_comparison_on_an_accelerator_takes_a_free_folder_once(
    recipe_file, garments_folder, model_folder, tmp_path, monkeypatch
):
    places = recipe_file.parent, garments_folder, garments_folder, model_folder, tmp_path / "out"
    context = ComparisonContext(read_comparison(recipe_file), *places)
    monkeypatch.setattr(runner, "on_cpu", lambda: False)
    runner.claim_work(context)
    runner.claim_work(context)
    monkeypatch.undo()
    with pytest.raises(DataError, match="another seconds"):
        runner.claim_work(context)


def test_a_contestant_may_join_and_must_then_stay_as_it_was(
    finished, recipe_file, garments_folder, model_folder
):
    result, out = finished
    joined = {"title": "contrast again", "recipes": ["contrast.yaml"]}
    path = recipe_file.with_name("joined.yaml")
    path.write_text(yaml.safe_dump({**COMPARISON, "contestants": [*COMPARISON["contestants"], joined]}))
    more = compare(path, garments_folder, out, model=model_folder, processes=1)
    first, second = (more["contestants"][title] for title in ("contrast", "contrast again"))
    metrics = [[run["metrics"] for run in row["budgets"]["steps"]["runs"]] for row in (first, second)]
    # The same recipe under another name gives the same numbers.
    assert metrics[0] == metrics[1]
    before = result["contestants"]["contrast"]["budgets"]["steps"]["runs"]
    assert metrics[0] == [run["metrics"] for run in before]
    changed = {**joined, "recipes": ["mined.yaml"]}
    path.write_text(yaml.safe_dump({**COMPARISON, "contestants": [*COMPARISON["contestants"], changed]}))
    with pytest.raises(DataError, match=r"another contestants\.contrast again"):
        compare(path, garments_folder, out, model=model_folder, processes=1)


def test_wrong_labels_are_given_to_one_contestant_and_told_apart(recipe_file, garments_folder, model_folder):
    shuffled = {"title": "shuffled", "recipes": ["contrast.yaml"], "shuffled_targets": 0.5}

    def context(contestant):
        both = [COMPARISON["contestants"][0], contestant]
        recipe = ComparisonRecipe.model_validate({**COMPARISON, "contestants": both})
        folders = garments_folder, garments_folder, model_folder, recipe_file.parent / "work"
        return ComparisonContext(recipe, recipe_file.parent, *folders)

    made = context(shuffled)
    stage = made.stages["shuffled"][0]
    right, wrong = (
        made.trainer(title, stage, None, made.work / title, with_dev=False).data.targets
        for title in ("contrast", "shuffled")
    )
    assert 0.4 < (right != wrong).float().mean() <= 0.5
    runner.claim_work(made)
    with pytest.raises(DataError, match=r"another contestants\.shuffled"):
        runner.claim_work(context({**shuffled, "shuffled_targets": 0.2}))


def test_a_column_is_predicted_by_the_head_that_the_recipe_names(recipe_file, garments_folder, model_folder):
    recipe = ComparisonRecipe.model_validate({**COMPARISON, "heads": {"main": "color"}})
    folders = garments_folder, garments_folder, model_folder, recipe_file.parent / "work"
    model = ComparisonContext(recipe, recipe_file.parent, *folders).start()
    method = model.with_method("predicted_attributes", {"columns": ["main"]}).method
    assert "red" in method.target_values["main"]
    with pytest.raises(DataError, match="no attribute head for 'color'"):
        model.with_method("predicted_attributes", {"columns": ["color"]})


def test_an_ablation_changes_options_negatives_and_refreshes_of_the_last_stage(recipe_file):
    contestant = {
        "title": "ablated",
        "recipes": ["contrast.yaml", "mined.yaml"],
        "options": {"attributes": ["colour"]},
        "negatives": {"choose": "random"},
        "refreshes": 2,
        "batch_size": 4,
    }
    both = [contestant, {"title": "plain", "recipes": ["mined.yaml"]}]
    recipe = ComparisonRecipe.model_validate({**COMPARISON, "contestants": both, "reference": "ablated"})
    plain, changed = stages(recipe, recipe.contestants[0], recipe_file.parent)
    assert plain.negatives.choose == "none" and plain.options["attributes"] == []
    assert changed.negatives.choose == "random" and changed.negatives.high == 0.5
    assert changed.options["attributes"] == ["colour"]
    assert [recipe.refreshes_of(title) for title in ("ablated", "plain")] == [2, 1]
    [usual] = stages(recipe, recipe.contestants[1], recipe_file.parent)
    assert [one.training.batch_size for one in (changed, usual)] == [4, recipe.batch_size]


def test_fewer_columns_leave_more_right_answers_and_frozen_questions_cannot_change(garments_folder, tmp_path):
    def context(**change):
        recipe = ComparisonRecipe.model_validate({**COMPARISON, **change})
        return ComparisonContext(recipe, tmp_path, garments_folder, garments_folder, None, tmp_path)

    def right(questions):
        return sum(len(triplet.relevant) for triplet in questions.triplets) / len(questions.triplets)

    whole = context().questions
    few = context(columns=["color", "sleeves"], max_changes=1).questions
    assert right(few) > 2 * right(whole)
    assert all(
        len(triplet.asked) == 1 and set(triplet.asked) <= {"color", "sleeves"} for triplet in few.triplets
    )
    assert context(frozen=whole.checksum).questions.checksum == whole.checksum
    with pytest.raises(DataError, match="not the frozen ones"):
        context(frozen=few.checksum).questions  # noqa: B018
    with pytest.raises(DataError, match="no column 'colour'"):
        context(columns=["colour"]).questions  # noqa: B018


def test_the_reference_runs_where_operations_are_the_only_budget(
    recipe_file, garments_folder, model_folder, tmp_path
):
    path = recipe_file.with_name("operations.yaml")
    search = {"factors": [1.0], "questions": 30}
    path.write_text(yaml.safe_dump({**COMPARISON, "budgets": ["operations"], "seeds": [0], "search": search}))
    result = compare(path, garments_folder, tmp_path / "out", model=model_folder, processes=1)
    for row in result["contestants"].values():
        assert [run["seed"] for run in row["budgets"]["operations"]["runs"]] == [0]


def test_a_budget_is_shared_between_stages_and_refreshes_come_first():
    counted = {"stages": [{"step": 10.0, "refresh": 0.0}, {"step": 20.0, "refresh": 100.0}]}
    assert fixed_steps(counted, None, 100, 2) == [50, 50]
    steps = fixed_steps(counted, 1000.0, 100, 2)
    assert steps == [50, 15]  # 500 / 10, and (500 - 2 * 100) / 20
    assert operations(counted, steps, 2) == 1000.0
    assert fixed_steps(counted, 50.0, 100, 2) == [2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "nobody"}, "is not the title of a contestant"),
        ({"seeds": [0, 0]}, "different numbers"),
        ({"contestants": [COMPARISON["contestants"][0]] * 2}, "the same title"),
        (
            {
                "contestants": [
                    {"title": title, "recipes": ["contrast.yaml"]} for title in ("contrast", "Contrast!")
                ]
            },
            "titles of the same letters",
        ),
        ({"stepps": 3}, "did you mean 'steps'"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        ComparisonRecipe.model_validate({**COMPARISON, **change})


def test_a_missing_stage_is_named_before_anything_runs(recipe_file, garments_folder, tmp_path):
    path = recipe_file.with_name("missing.yaml")
    settings = {**COMPARISON, "contestants": [{"title": "contrast", "recipes": ["nowhere.yaml"]}]}
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(DataError, match=r"nowhere\.yaml"):
        compare(path, garments_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"contestants": [{**COMPARISON["contestants"][0], "options": {"rankin_weight": 1}}]},
            "'contrast' has",
        ),
        (
            {"contestants": [{**COMPARISON["contestants"][0], "negatives": {"choose": "nun"}}]},
            "negatives.choose",
        ),
        ({"baselines": ["image_onyl"]}, "did you mean 'image_only'"),
        ({"baselines": [{"method": "image_only", "options": {"a": 1}}]}, "options of image only"),
        ({"gallery_column": "garmnt"}, "did you mean 'garment'"),
        ({"heads": {"color": "colour"}}, r"no attribute head for 'colour'.*'color'"),
    ],
)
def test_a_mistake_is_one_sentence_and_takes_no_folder(
    recipe_file, garments_folder, model_folder, tmp_path, change, message
):
    path = recipe_file.with_name("mistaken.yaml")
    path.write_text(yaml.safe_dump({**COMPARISON, **change}))
    with pytest.raises(DataError, match=message):
        compare(path, garments_folder, tmp_path / "out", model=model_folder, processes=1)
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_carry_a_method_is_told_before_anything_is_stored(
    recipe_file, garments_folder, model, tmp_path, monkeypatch
):
    replace(model, heads=None).save_pretrained(tmp_path / "headless")
    path = recipe_file.with_name("heads.yaml")
    stage = {"title": "heads", "recipes": ["contrast.yaml", "heads.yaml"]}
    path.write_text(yaml.safe_dump({**COMPARISON, "contestants": [*COMPARISON["contestants"], stage]}))
    (path.parent.parent / "heads.yaml").write_text(
        yaml.safe_dump({"method": "dqe_heads", "negatives": {"choose": "none"}, "training": TRAINING})
    )
    monkeypatch.setattr(ComparisonContext, "store", lambda *_: pytest.fail("image tokens were stored"))
    with pytest.raises(DataError, match="dqe_heads needs a model with attribute heads"):
        compare(path, garments_folder, tmp_path / "out", model=tmp_path / "headless", processes=1)
    assert not (tmp_path / "out").exists()


def test_every_comparison_that_ships_can_be_read():
    folder = Path(__file__).parents[3] / "recipes" / "compare"
    for path in folder.glob("*.yaml"):
        recipe = read_comparison(path)
        assert all(stages(recipe, contestant, folder) for contestant in recipe.contestants)
