"""The command line as users see it: every command, and the errors for wrong input."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
method: dqe
negatives: {choose: mid_zone, bounds: quantile, low: 0.05, high: 0.5, refresh_epochs: 1}
triplets: {per_reference: 1}
training: {steps: 6, batch_size: 16, precision: fp32}
"""
PRETRAINING = """
backbone:
  tower: {kind: stem, image_size: 32, widths: [8, 16, 16]}
  hidden_size: 16
  layers: 2
  heads: 2
  intermediate_size: 32
  query_tokens: 3
  embedding_size: 12
  text_positions: 48
  attention: eager
preprocessing: {size: 32, pad_ratio: 1.0}
vocabulary_size: 400
max_text_length: 32
classification: {steps: 3, batch_size: 8}
contrast: {steps: 3, batch_size: 8}
precision: fp32
"""


def test_from_pretraining_to_an_answer(dqecir, garments_folder, tmp_path):
    (tmp_path / "pre.yaml").write_text(PRETRAINING)
    (tmp_path / "train.yaml").write_text(RECIPE)
    model, run, index = tmp_path / "model", tmp_path / "run", tmp_path / "index"
    assert dqecir("pretrain", tmp_path / "pre.yaml", "--data", garments_folder, "--out", model)[0] == 0
    code, _, err = dqecir(
        "train", tmp_path / "train.yaml", "--data", garments_folder, "--model", model, "--out", run
    )
    assert code == 0
    assert "mAP@10" in err

    report = tmp_path / "metrics.json"
    code, out, _ = dqecir("evaluate", "--data", garments_folder, "--model", run / "best", "--json", report)
    assert code == 0
    rows = json.loads(report.read_text())["rows"]
    assert {"dqe", "image_only", "text_only", "image_plus_text", "oracle, full"} <= set(rows)
    assert rows["oracle, full"]["mAP@10"] > rows["image_only"]["mAP@10"]

    pictures = garments_folder / "images"
    code, out, _ = dqecir("index", "build", "--images", pictures, "--out", index, "--model", run / "last")
    assert code == 0
    assert "240 images indexed" in out
    one = next(pictures.iterdir())
    sheet = tmp_path / "sheet.png"
    arguments = (
        "search",
        "--index",
        index,
        "--image",
        one,
        "--text",
        "is red",
        "-k",
        3,
        "--model",
        run / "last",
    )
    code, out, _ = dqecir(*arguments, "--json", "--sheet", sheet)
    assert code == 0
    found = json.loads(out)
    assert len(found["answers"]) == 3
    assert set(found["attribute_weights"]) == {"colour", "shape"}
    assert Image.open(sheet).width > 500


def test_a_killed_pretraining_goes_on_after_its_finished_stage(
    dqecir, garments_folder, tmp_path, monkeypatch
):
    from dqecir.training.pretraining import Pretrainer

    (tmp_path / "pre.yaml").write_text(PRETRAINING)
    arguments = ("pretrain", tmp_path / "pre.yaml", "--data", garments_folder, "--out", tmp_path / "model")

    def killed(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Pretrainer, "contrast", killed)
    assert dqecir(*arguments)[0] == 130
    monkeypatch.undo()
    stage = tmp_path / ".model.work" / "classification.pt"
    written = stage.stat().st_mtime_ns
    code, _, err = dqecir(*arguments, "--split", "train_all")
    assert (code, "holds a pretraining with another split (train, not train_all)" in err) == (1, True)
    assert dqecir(*arguments)[0] == 0
    assert stage.stat().st_mtime_ns == written
    assert (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize("stage", ["classification", "contrast"])
def test_a_pretraining_killed_in_a_stage_ends_where_an_unbroken_one_does(
    garments, tmp_path, monkeypatch, stage
):
    from dqecir.settings import parse_settings
    from dqecir.training import pretraining
    from dqecir.training.recipe import PretrainingRecipe

    recipe = parse_settings(yaml.safe_load(PRETRAINING), PretrainingRecipe, "recipe")

    def run(name: str):
        return pretraining.Pretrainer(recipe, [garments], "train", tmp_path / name, quiet=True).run()

    whole = run("whole")
    # Word pieces are not a matter of the seed; a run keeps its own.
    shutil.copytree(tmp_path / "whole" / "tokenizer", tmp_path / "broken" / "tokenizer")
    monkeypatch.setattr(pretraining, "SAVE_EVERY", 1)
    save = pretraining.Pretrainer.save

    def killed(self, name, step, *rest):
        save(self, name, step, *rest)
        if (name, step) == (stage, 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(pretraining.Pretrainer, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run("broken")
    monkeypatch.setattr(pretraining.Pretrainer, "save", save)
    assert run("broken").fingerprint == whole.fingerprint


def free_port() -> str:
    """Return a free port, so that two test suites on one machine do not collide."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_two_processes_train_one_model(garments_folder, model_folder, tmp_path):
    (tmp_path / "train.yaml").write_text(RECIPE)
    bin_folder = Path(sys.executable).parent
    ended = subprocess.run(
        [
            *(
                bin_folder / "torchrun",
                "--nproc_per_node",
                "2",
                "--master_port",
                free_port(),
                bin_folder / "dqecir",
            ),
            *("train", tmp_path / "train.yaml", "--data", garments_folder),
            *("--model", model_folder, "--out", tmp_path / "run"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if row["what"] == "train"] == [1, 6]
    assert (tmp_path / "run" / "last" / "model.safetensors").exists()


def test_two_processes_learn_what_one_learns_from_the_same_batches(garments_folder, model, tmp_path):
    # Without dropout, which draws otherwise in every process, all numbers must agree.
    folder = model.save_pretrained(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["backbone"]["dropout"] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    recipe = yaml.safe_load(RECIPE)
    # Attribute margins are a mean weighted by what each share of a batch mentions: alike to 1e-4 alone.
    recipe["options"] = {"attribute_weight": 0}
    # A large epsilon: AdamW would blow the rounding of gradients near zero up to whole steps.
    recipe["training"] |= {"steps": 5, "epsilon": 1e-3}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(recipe))
    bin_folder = Path(sys.executable).parent
    launched = {
        "one": [bin_folder / "dqecir"],
        "two": [
            *(bin_folder / "torchrun", "--nproc_per_node", "2", "--master_port", free_port()),
            bin_folder / "dqecir",
        ],
    }
    for name, launch in launched.items():
        ended = subprocess.run(
            [
                *(*launch, "train", tmp_path / "train.yaml", "--data", garments_folder),
                *("--model", tmp_path / "model", "--out", tmp_path / name),
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in launched
    ]
    for one, two in zip(*logs, strict=True):
        if one["what"] == "train":
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    weights = [load_file(tmp_path / name / "last" / "model.safetensors") for name in launched]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_render_and_check(dqecir, tmp_path):
    assert dqecir("catalogue", "render", tmp_path / "g", "--items", 9, "--size", 64)[0] == 0
    code, out, _ = dqecir("catalogue", "check", tmp_path / "g")
    assert code == 0
    assert "can be used" in out
    next((tmp_path / "g" / "images").iterdir()).write_text("broken")
    code, out, _ = dqecir("catalogue", "check", tmp_path / "g")
    assert code == 1
    assert "cannot be opened" in " ".join(out.split())


def test_the_shipped_model_answers_sensibly(dqecir, tmp_path):
    """On unseen garments, the shipped model is far better than image and text alone."""
    dqecir(
        "catalogue", "render", tmp_path / "g", "--items", 300, "--seed", 4242, "--size", 96, "--split", "val"
    )
    report = tmp_path / "metrics.json"
    code, _, _ = dqecir(
        "evaluate",
        "--data",
        tmp_path / "g",
        "--gallery-column",
        "garment",
        "--json",
        report,
        "--per-reference",
        1,
    )
    assert code == 0
    rows = json.loads(report.read_text())["rows"]
    own = next(iter(rows.values()))
    baselines = [rows[name]["mAP@10"] for name in ("image_only", "text_only", "image_plus_text")]
    assert own["mAP@10"] > max(baselines) + 20
    assert own["unseen/mAP@10"] > max(baselines) + 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "--index", "NOWHERE", "--image", "x.jpg", "--text", "is red"), "is not an index"),
        (("index", "build", "--images", "NOWHERE", "--out", "i"), "no folder"),
        (("evaluate", "--data", "NOWHERE"), "no such folder"),
        (("evaluate", "--data", "GARMENTS", "--split", "vall"), "did you mean 'val'"),
        (("evaluate", "--data", "GARMENTS", "--gallery-column", "garmet"), "did you mean 'garment'"),
        (("evaluate", "--data", "GARMENTS", "--model", "NOWHERE"), "no config.json"),
        (("train", "none.yaml", "--data", "GARMENTS", "--out", "r"), "there is no file none.yaml"),
        (("search", "--text", "red"), "nothing to search: give --index INDEX or --server URL"),
        (
            ("search", "--index", "NOWHERE", "--server", "x", "--text", "red"),
            "give --index or --server, not both",
        ),
        (("index", "build", "--images", "GARMENTS", "--out", "i", "--method", "sum"), "leave out --method"),
        (
            ("protocol", "cirr", "--data", "x", "--submit", "s", "--json", "m.json"),
            "leave out --missing and --json",
        ),
    ],
)
def test_wrong_input_gets_one_sentence_and_exit_1(dqecir, garments_folder, tmp_path, arguments, message):
    places = {"NOWHERE": tmp_path / "nowhere", "GARMENTS": garments_folder}
    code, _, err = dqecir(*(places.get(argument, argument) for argument in arguments))
    assert code == 1
    assert message in err
    assert "Traceback" not in err


def test_the_installed_command_ends_with_a_sentence():
    command = Path(sys.executable).parent / "dqecir"
    ended = subprocess.run(
        [command, "catalogue", "render", "x", "--split", "vall"], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "did you mean 'val'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_text_and_broken_pictures(dqecir, garments_folder, tmp_path):
    pictures = tmp_path / "p"
    pictures.mkdir()
    for path in sorted((garments_folder / "images").iterdir())[:4]:
        shutil.copy(path, pictures)
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    code, out, _ = dqecir("index", "build", "--images", pictures, "--out", tmp_path / "i")
    assert code == 0
    assert "4 images indexed" in out
    assert "broken.png" in out.replace("\n", "")
    one = next(pictures.glob("*.jpg"))
    code, out, _ = dqecir("search", "--index", tmp_path / "i", "--image", one)
    assert (code, len(out.splitlines())) == (0, 3)  # what is like it, but not itself
    code, _, err = dqecir("search", "--index", tmp_path / "i", "--image", one, "--weight", "colour")
    assert (code, "'colour' is not ATTRIBUTE=NUMBER" in err) == (1, True)
    code, _, err = dqecir("search", "--index", tmp_path / "i", "--image", one, "--reference", "b.jpg=x")
    assert (code, "--reference b.jpg=x is neither a picture file nor the id of an item" in err) == (1, True)
    code, _, err = dqecir(
        "search", "--index", tmp_path / "i", "--image", pictures / "broken.png", "--text", "is red"
    )
    assert code == 1
    assert "broken.png" in err


def test_the_demonstration(dqecir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = "a [red] demo"
    code, _, err = dqecir("demo", "--out", folder, "--items", 300)
    assert code == 0
    assert "The report is at a [red] demo/report.html" in err
    report = (tmp_path / folder / "report.html").read_text()
    assert report.count("<article>") == 12
    assert "oracle, full" in report
    assert len(list((tmp_path / folder).glob("answers-*.png"))) == 2
    # The command that it prints can be pasted.
    (command,) = re.findall(r"dqecir (search .* --sheet answer\.png)", err)
    assert dqecir(*shlex.split(command))[0] == 0
    assert (tmp_path / "answer.png").is_file()
    # A second run takes the place of the first.
    assert dqecir("demo", "--out", folder, "--items", 300)[0] == 0


def test_the_python_of_the_readme_runs(garments_folder, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    pictures = tmp_path / "PICTURES"
    pictures.mkdir()
    for path in sorted((garments_folder / "images").iterdir())[:6]:
        shutil.copy(path, pictures)
    shutil.copy(next(pictures.iterdir()), pictures / "this.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "INDEX" / "manifest.json").exists()


def test_the_shipped_model_is_small_and_has_a_card():
    folder = ROOT / "src" / "dqecir" / "assets" / "dqecir-small"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 16_000_000
    card = (folder / "README.md").read_text()
    for heading in ("## What it is", "## How it was trained", "## What it can and cannot do"):
        assert heading in card
