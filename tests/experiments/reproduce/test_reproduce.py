"""The whole command on a miniature of each data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dqecir.data.hp_fashioniq import read_hp_fashioniq
from dqecir.evaluation.evaluate import embed_images, embed_queries
from dqecir.evaluation.runs import evaluate_on_protocol
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.training.loop import Trainer

BASELINES = [f"untrained weights, {name}" for name in ("image only", "text only", "image plus text")]


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def rows_of(out: Path) -> dict[str, dict]:
    return {row["name"]: row for row in report_of(out)["rows"]}


def dev_of(out: Path, headline: str) -> list[float]:
    lines = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    return [line[headline] for line in lines if line["what"] == "dev"]


def test_fashioniq(command, fashioniq, recipes, tmp_path):
    out, arguments = tmp_path / "out", ("--data", fashioniq, "--recipe", recipes["fashioniq"])
    code, shown, err = command("fashioniq", *arguments, "--out", out)
    assert code == 0, err
    rows, headline = rows_of(out), "(R@10 + R@50)/2"
    assert list(rows) == [*BASELINES, "dqe, best epoch", "dqe, last epoch"]
    best, last = rows["dqe, best epoch"], rows["dqe, last epoch"]
    dev = dev_of(out, headline)
    assert len(dev) == 3
    assert best["metrics"][headline] == pytest.approx(max(dev))
    assert last["metrics"][headline] == pytest.approx(dev[-1])
    assert best["chosen"].startswith(f"epoch {1 + int(np.argmax(dev))} of 3, chosen on fashioniq val")
    measured, _ = evaluate_on_protocol(fashioniq, "fashioniq", "val", out / "run" / "best")
    assert best["metrics"] == pytest.approx(measured)
    # Conditions stand beside every number, on the terminal too.
    line = "val, gallery original, reference not masked, captions c1 and c2, cleaned"
    assert sum(line in printed for printed in shown.splitlines()) == 5
    (published,) = report_of(out)["comparisons"]
    assert published["published"]["method"] == "DQE-CIR"
    assert published["differences"]["R@50"]["published"] == 74.94
    # One run is left as it is: another call measures again, and another protocol is refused this folder.
    log = (out / "run" / "log.jsonl").read_text()
    assert command("fashioniq", *arguments, "--out", out)[0] == 0
    assert (out / "run" / "log.jsonl").read_text() == log
    assert rows_of(out) == rows
    code, _, err = command("fashioniq", *arguments, "--out", out, "--protocol", "fashioniq-val")
    assert code == 1
    assert "holds a reproduction with another protocol" in err
    assert {"answers.png", "curves.png", "report.md"} <= {path.name for path in out.iterdir()}


def test_a_killed_run_ends_where_an_unbroken_one_does(command, fashioniq, recipes, tmp_path, monkeypatch):
    arguments = ("--data", fashioniq, "--recipe", recipes["fashioniq"], "--protocol", "fashioniq-val")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command("fashioniq", *arguments, "--out", whole)[0] == 0
    step = Trainer.train_step

    def killed(trainer, number):
        if number == 5:
            raise KeyboardInterrupt
        return step(trainer, number)

    monkeypatch.setattr(Trainer, "train_step", killed)
    assert command("fashioniq", *arguments, "--out", broken)[0] == 130
    assert not (broken / "report.json").exists()
    monkeypatch.setattr(Trainer, "train_step", step)
    code, _, err = command("fashioniq", *arguments, "--out", broken)
    assert code == 0, err
    assert "resuming" in err
    assert rows_of(broken) == rows_of(whole)
    conditions = rows_of(whole)["dqe, best epoch"]["conditions"]
    assert (conditions["gallery"], conditions["reference"]) == ("VAL split", "masked")
    assert conditions["captions"] == "c1 and c2, raw; and reversed, 2Q queries"
    assert report_of(whole)["data"][0]["questions"] == 36
    assert "their gallery is original, ours VAL split" in report_of(whole)["comparisons"][0]["verdict"]


def test_missing_images_are_named_and_skipped_when_asked(command, fashioniq, recipes, tmp_path):
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(fashioniq, folder)
    arguments = ("--data", folder, "--recipe", recipes["fashioniq"], "--out", out)
    asked = json.loads((folder / "captions" / "cap.dress.val.json").read_text())
    gone = asked[0]["target"]
    fallen = sum(gone in (row["candidate"], row["target"]) for row in asked)
    (path,) = (folder / "images").glob(f"{gone}.*")
    path.unlink()
    code, _, err = command("fashioniq", *arguments)
    assert code == 1
    assert "in val; the first is" in err
    assert gone in (out / "missing-images.txt").read_text()
    assert not (out / "run").exists()
    code, _, err = command("fashioniq", *arguments, "--missing", "skip")
    assert code == 0, err
    data = {one["split"]: one for one in report_of(out)["data"]}
    assert (data["val"]["missing"], data["val"]["fallen"], data["val"]["questions"]) == (1, fallen, 18)
    assert data["train"]["missing"] == 0
    skipped = (out / "fallen-questions.txt").read_text().splitlines()
    assert len(skipped) == fallen and all(line.startswith("val\t") and gone in line for line in skipped)
    share = 100 * fallen / 18
    said = f"val: {fallen} of 18 questions ({share:.2f} %) are left out, because 1 of"
    assert said in (out / "report.md").read_text()
    assert "1 images are missing here" in report_of(out)["comparisons"][0]["verdict"]


def test_cirr_and_then_circo_by_its_run(command, cirr, circo, recipes, tmp_path):
    folder, out = tmp_path / "data", tmp_path / "cirr"
    shutil.copytree(cirr, folder)
    first = next((folder / "dev").glob("*.png"))
    shutil.move(first, first.with_suffix(".jpg"))
    code, shown, err = command("cirr", "--data", folder, "--recipe", recipes["cirr"], "--out", out)
    assert code == 0, err
    files = report_of(out)["submissions"]
    assert {name: facts["questions"] for name, facts in files.items()} == {
        "cirr_test1_recall.json": 8,
        "cirr_test1_recall_subset.json": 8,
    }
    assert files["cirr_test1_recall_subset.json"]["answers"] == 3
    metrics = rows_of(out)["dqe, best epoch"]["metrics"]
    assert metrics["(R@5 + R_sub@1)/2"] == pytest.approx(max(dev_of(out, "(R@5 + R_sub@1)/2")))
    assert "published on test, measured on val" in shown

    zero = tmp_path / "circo"
    code, shown, err = command("circo", "--data", circo, "--run", out, "--out", zero)
    assert code == 0, err
    rows = rows_of(zero)
    assert list(rows) == [*BASELINES, "dqe, best epoch", "dqe, last epoch"]
    assert rows["dqe, best epoch"]["chosen"] == "chosen on cirr val by the headline of cirr"
    measured, _ = evaluate_on_protocol(circo, "circo", "val", out / "run" / "best")
    assert rows["dqe, best epoch"]["metrics"] == pytest.approx(measured)
    assert report_of(zero)["submissions"]["circo_test.json"]["questions"] == 6
    assert report_of(zero)["comparisons"] == []  # nobody published DQE-CIR there
    assert not (zero / "run").exists()


def test_hp_fashioniq_gives_both_ratios(command, hp_fashioniq, tmp_path, model):
    run, out = tmp_path / "run", tmp_path / "out"
    model.save_pretrained(run / "best")
    code, _, err = command("hp-fashioniq", "--data", hp_fashioniq, "--run", run, "--out", out)
    assert code == 0, err
    preferences = read_hp_fashioniq(hp_fashioniq / "hpfiq.json")
    judgements = preferences.judgements
    own = ComposedModel.from_pretrained(run / "best")
    store = store_of(own, preferences, tmp_path / "tokens", quiet=True)
    images = embed_images(own.method, store)
    agreed, first = [], []
    for one in judgements:
        query = embed_queries(own.method, store, own.text_encoder, [one.reference], [one.text])
        scores = (images @ query[0, 0]).max(dim=1).values
        means = [float(scores[list(side)].mean()) for side in one.sets]
        agreed.append((1 if means[0] > means[1] else 2) == one.preferred)
        first += [one.preferred == 1] if means[0] > means[1] else []
    row = rows_of(out)["image_plus_text, best epoch"]["metrics"]
    assert row["symmetric ratio"] == pytest.approx(100 * np.mean(agreed))
    assert row["one-sided ratio, as published"] == pytest.approx(100 * np.mean(first))
    assert row["chance of the one-sided"] == pytest.approx(
        100 * np.mean([one.preferred == 1 for one in judgements])
    )
    assert BASELINES[2] in rows_of(out)

    (gone,) = [preferences.image_paths[judgements[0].target]]
    folder = tmp_path / "data"
    shutil.copytree(hp_fashioniq, folder)
    (folder / "images" / gone.name).unlink()
    code, _, err = command("hp-fashioniq", "--data", folder, "--run", run, "--out", out, "--missing", "skip")
    assert code == 0, err
    (data,) = report_of(out)["data"]
    named = sum(
        judgements[0].target in (one.reference, one.target, *one.sets[0], *one.sets[1]) for one in judgements
    )
    assert (data["missing"], data["fallen"]) == (1, named)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fashion", "--data", "."), "no data set 'fashion'; did you mean 'fashioniq'?"),
        (("circo", "--data", "."), "circo has no training split: name a run with --run"),
        (("fashioniq", "--data", ".", "--protocol", "cirr"), "measures cirr, not fashioniq"),
        (("fashioniq", "--data", "nowhere"), "there is no file nowhere/image_splits"),
        (("fashioniq", "--data", ".", "--run", "nowhere"), "nowhere is not a run"),
        (("cirr", "--data", ".", "--run", ".", "--recipe", "r.yaml"), "give --recipe or --run, not both"),
        (("cirr", "--data", ".", "--recipe", "r.yaml"), "there is no file r.yaml"),
    ],
)
def test_mistakes_are_one_sentence(command, tmp_path, arguments, message):
    code, _, err = command(*arguments, "--out", tmp_path / "out")
    assert code == 1
    assert message in err
    assert not (tmp_path / "out" / "report.json").exists()
