"""Train, evaluate and compare on a user's own triplets, by the commands."""

import json
import shutil

import pytest
import yaml

from dqecir.questions.composing import catalogue_benchmark


@pytest.fixture(scope="module")
def mine(garments, garments_folder, tmp_path_factory):
    """Return a folder of triplets without a table."""
    folder = tmp_path_factory.mktemp("mine") / "mine"
    shutil.copytree(garments_folder, folder, ignore=shutil.ignore_patterns("*.csv", "*.yaml"))
    rows = []
    for split, count in (("train", 60), ("val", 20)):
        drawn = catalogue_benchmark(garments, split, count=count)
        for triplet in drawn.triplets:
            right = [drawn.image_ids[image] for image in triplet.relevant]
            rows.append(
                {
                    "reference": drawn.image_ids[triplet.reference],
                    "target": drawn.image_ids[triplet.target],
                    "texts": list(triplet.captions),
                    "right_answers": right,
                    "split": split,
                }
            )
    (folder / "triplets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


RECIPE = {
    "method": "dqe",
    "options": {
        "attributes": [],
        "pair_weight": 0,
        "ranking_weight": 0,
        "attribute_weight": 0,
        "contrast_weight": 1,
    },
    "negatives": {"choose": "none"},
    "training": {"learning_rate": 0.001, "precision": "fp32", "batch_size": 16, "steps": 3},
}


def test_train_and_evaluate(dqecir, mine, model_folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    run, report = tmp_path / "run", tmp_path / "report.json"
    code, _, errors = dqecir("train", recipe, "--data", mine, "--model", model_folder, "--out", run)
    assert code == 0, errors
    code, out, errors = dqecir("evaluate", "--data", mine, "--model", run / "best", "--json", report)
    assert code == 0, errors
    assert "20 questions" in out and "beyond recall" in out
    rows = json.loads(report.read_text())["rows"]
    assert {"mAP", "nDCG@10", "composition gap"} <= set(rows["dqe"])
    assert "hard negatives@10" not in rows["dqe"] and not any(name.startswith("oracle") for name in rows)
    code, _, errors = dqecir("evaluate", "--data", mine, "--model", run / "best", "--gallery-column", "color")
    assert code == 1 and "leave out 'color'" in errors


def test_compare(dqecir, mine, model_folder, tmp_path):
    (tmp_path / "contrast.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "compare").mkdir()
    comparison = {
        "name": "mine",
        "reference": "contrast",
        "triplets": 40,
        "questions": 15,
        "steps": 2,
        "batch_size": 16,
        "seeds": [0],
        "budgets": ["steps"],
        "search": {"factors": [1.0], "questions": 10},
        "baselines": ["image_plus_text"],
        "contestants": [{"title": "contrast", "recipes": ["contrast.yaml"]}],
    }
    path = tmp_path / "compare" / "mine.yaml"
    path.write_text(yaml.safe_dump(comparison))
    out = tmp_path / "out"
    code, _, errors = dqecir(
        "compare", path, "--data", mine, "--model", model_folder, "--out", out, "--processes", 1
    )
    assert code == 0, errors
    result = json.loads((out / "results.json").read_text())
    assert (result["questions"], result["triplets"]) == (15, 40)
    page = (out / "results.md").read_text()
    assert "composition gap" in page and "unseen" not in page and "parser" not in page
