"""Protocols, submissions, conversions and comparisons, through the command line."""

import json
import shutil

import pytest
import torch
import yaml

from dqecir.methods.clip4cir import Combiner


@pytest.fixture
def cirr(garments, tmp_path):
    """Return twelve pictures in two image sets, in the form of CIRR, with a val and a test1 split."""
    folder = tmp_path / "cirr"
    for part in ("dev", "captions", "image_splits"):
        (folder / part).mkdir(parents=True)
    names = [f"dev-{number}-img" for number in range(12)]
    for name, path in zip(names, garments.image_paths[: len(names)], strict=True):
        shutil.copy(path, folder / "dev" / f"{name}.png")
    pairs = []
    for number in range(4):
        members = names[:6] if number < 2 else names[6:]
        pair = {"pairid": number, "reference": members[number], "caption": "is red", "img_set": {}}
        pair["img_set"] = {"id": number // 2, "members": members}
        pairs.append(pair)
    for split in ("val", "test1"):
        rows = [dict(pair) for pair in pairs]
        if split == "val":
            rows = [{**row, "target_hard": row["img_set"]["members"][5]} for row in rows]
        else:
            rows[2]["caption"] = " "
        (folder / "captions" / f"cap.rc2.{split}.json").write_text(json.dumps(rows))
        places = {name: f"./dev/{name}.png" for name in names}
        (folder / "image_splits" / f"split.rc2.{split}.json").write_text(json.dumps(places))
    return folder


@pytest.mark.parametrize("method", ["image_plus_text", "biblip4cir"])
def test_a_model_is_measured_under_a_published_protocol(dqecir, cirr, model, tmp_path, method):
    model.with_method(method, {}).eval().save_pretrained(tmp_path / "model")
    report = tmp_path / "metrics.json"
    code, out, err = dqecir(
        "protocol", "cirr", "--data", cirr, "--model", tmp_path / "model", "--json", report
    )
    assert code == 0, err
    written = json.loads(report.read_text())
    metrics = written["metrics"]
    assert list(metrics)[-1] == "(R@5 + R_sub@1)/2"
    assert metrics["(R@5 + R_sub@1)/2"] == pytest.approx((metrics["R@5"] + metrics["R_sub@1"]) / 2)
    assert f"R@50: {metrics['R@50']:.2f}" in out
    assert written["facts"]["mask_reference"] and written["facts"]["queries"] == 4


def test_a_submission_answers_every_question_a_blank_one_too(dqecir, cirr, model_folder, tmp_path):
    out_folder = tmp_path / "submission"
    code, out, err = dqecir(
        "protocol",
        "cirr",
        "--data",
        cirr,
        "--split",
        "test1",
        "--model",
        model_folder,
        "--submit",
        out_folder,
    )
    assert code == 0, err
    recall = json.loads((out_folder / "cirr_test1_recall.json").read_text())
    subset = json.loads((out_folder / "cirr_test1_recall_subset.json").read_text())
    assert (recall.pop("version"), recall.pop("metric")) == ("rc2", "recall")
    assert set(recall) == {"0", "1", "2", "3"} == set(subset) - {"version", "metric"}
    assert all(len(names) == 11 for names in recall.values())
    assert "cirr_test1_recall.json" in out


def test_an_unknown_protocol_and_missing_data_are_one_sentence(dqecir, tmp_path):
    code, _, err = dqecir("protocol", "cir", "--data", tmp_path)
    assert code == 1 and "did you mean 'cirr'" in err
    code, _, err = dqecir("protocol", "cirr", "--data", tmp_path)
    assert code == 1 and "there is no file" in err


def test_a_published_composer_is_converted_and_read_back(dqecir, tmp_path):
    names = {
        "text_projection": "text_projection_layer",
        "image_projection": "image_projection_layer",
        "hidden": "combiner_layer",
        "output": "output_layer",
        "balance": "dynamic_scalar",
    }
    combiner = Combiner(8, 12, 16)
    state = {}
    for key, value in combiner.state_dict().items():
        first, rest = key.split(".", 1)
        state[f"{names[first]}.{rest}"] = value
    torch.save({"epoch": 3, "Combiner": state}, tmp_path / "combiner.pt")
    out_folder = tmp_path / "converted"
    code, out, _ = dqecir("convert", "--from", "clip4cir", tmp_path / "combiner.pt", out_folder)
    assert code == 0 and "12 tensors loaded" in out
    from dqecir.model.conversion import load_composer

    image, text = torch.randn(3, 8), torch.randn(3, 8)
    again = load_composer(out_folder)
    assert torch.equal(again(image, text), combiner.eval()(image, text))
    code, _, err = dqecir("convert", "--from", "clipcir", tmp_path / "combiner.pt", tmp_path / "x")
    assert code == 1 and "did you mean 'clip4cir'" in err
    assert not (tmp_path / "x").exists()


def test_a_comparison_from_the_command_line(dqecir, garments_folder, model_folder, tmp_path):
    (tmp_path / "compare").mkdir()
    (tmp_path / "tirg.yaml").write_text(
        yaml.safe_dump({"method": "tirg", "negatives": {"choose": "none"}, "training": {"precision": "fp32"}})
    )
    recipe = {
        "name": "tiny",
        "reference": "TIRG",
        "triplets": 64,
        "questions": 20,
        "confusable": 8,
        "steps": 2,
        "batch_size": 16,
        "seeds": [0],
        "budgets": ["steps"],
        "search": {"factors": [1.0], "questions": 20},
        "baselines": ["image_only", "predicted_attributes"],
        "contestants": [{"title": "TIRG", "recipes": ["tirg.yaml"]}],
    }
    path = tmp_path / "compare" / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    out_folder = tmp_path / "out"
    code, out, err = dqecir(
        "compare",
        path,
        "--data",
        garments_folder,
        "--model",
        model_folder,
        "--out",
        out_folder,
        "--processes",
        1,
    )
    assert code == 0, err
    # A narrow terminal breaks names between words.
    assert all(word in out for word in ("TIRG", "predicted", "attributes"))
    written = (out_folder / "results.md").read_text()
    assert "| TIRG |" in written and "predicted attributes, exact, perfect parse" in written
    assert "The parser of predicted attributes reads the requests without any error" in written
