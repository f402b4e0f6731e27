"""A comparison over several encoders: which methods fit which encoders, and the analysis of variance."""

import json

import pytest
import yaml

from dqecir.errors import DataError
from dqecir.experiments.compare.encoder_axis import compare_encoders, explained, page
from tests.encoders.dual_cases import write_clip

TRAINING = {"learning_rate": 0.001, "precision": "fp32"}
PLAIN = {"negatives": {"choose": "none"}, "training": TRAINING}
COMPARISON = {
    "name": "tiny",
    "reference": "sprc",
    "triplets": 64,
    "questions": 30,
    "confusable": 8,
    "steps": 2,
    "batch_size": 16,
    "refreshes": 0,
    "seeds": [0, 1],
    "budgets": ["steps"],
    "search": {"factors": [1.0], "questions": 20},
    "baselines": ["image_plus_text", "basic", "token_mean"],
    "contestants": [
        {"title": "sprc", "recipes": ["sprc.yaml"]},
        {"title": "TIRG", "recipes": ["tirg.yaml"]},
        {"title": "CLIP4Cir, stage 1", "recipes": ["sum.yaml"]},
    ],
}


@pytest.fixture
def recipe_file(tmp_path):
    folder = tmp_path / "recipes"
    (folder / "compare").mkdir(parents=True)
    for name, method in (("sprc", "sprc"), ("tirg", "tirg"), ("sum", "clip4cir_sum")):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"method": method, **PLAIN}))
    path = folder / "compare" / "tiny.yaml"
    path.write_text(yaml.safe_dump(COMPARISON))
    return path


def test_methods_are_compared_over_the_encoders_that_they_fit(
    recipe_file, garments_folder, model_folder, tmp_path, dqecir
):
    clip, out = write_clip(tmp_path / "clip"), tmp_path / "out"
    asked = ("compare", recipe_file, "--data", garments_folder, "--out", out, "--processes", 1)
    code, printed, err = dqecir(*asked, "--encoder", model_folder, "--encoder", clip)
    assert code == 0, err
    found = json.loads((out / "encoders.json").read_text())
    ours, theirs = (found["values"][str(name)] for name in (model_folder, clip))
    assert set(ours) == {"sprc", "TIRG", "CLIP4Cir, stage 1", "image plus text", "basic", "token mean"}
    assert set(ours) - set(theirs) == {"sprc"}
    assert all(len(own["TIRG"]) == 2 for own in (ours, theirs))
    [refused] = found["refused"]
    assert (refused["encoder"], refused["method"]) == (str(clip), "sprc")
    assert "sprc needs composed" in refused["reason"]
    assert sum(found["explained"].values()) == pytest.approx(1)
    said = (out / "encoders.md").read_text()
    assert "Pairs that do not fit" in said and "sprc needs composed" in said
    assert "sprc needs composed" in printed


def test_an_encoder_that_nothing_fits_is_one_sentence(recipe_file, garments_folder, model_folder, tmp_path):
    clip = write_clip(tmp_path / "clip")
    only = COMPARISON | {"contestants": COMPARISON["contestants"][:1]}
    recipe_file.write_text(yaml.safe_dump(only))
    with pytest.raises(DataError, match=r"no contestant runs over the encoder .*clip: sprc needs composed"):
        compare_encoders(recipe_file, garments_folder, tmp_path / "out", [str(model_folder), str(clip)])
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="name each once"):
        compare_encoders(recipe_file, garments_folder, tmp_path / "out", [str(clip), str(clip)])


def test_a_model_and_encoders_are_one_too_many(recipe_file, garments_folder, model_folder, tmp_path, dqecir):
    code, _, err = dqecir(
        *("compare", recipe_file, "--data", garments_folder, "--out", tmp_path / "o"),
        *("--model", model_folder, "--encoder", "a", "--encoder", "b"),
    )
    assert code == 1
    assert "not both" in err


def test_the_variance_is_shared_out_by_hand():
    # Encoders differ by 4, methods by 2, seeds by 1, and nothing hangs on both together.
    values = {
        e: {m: [10 + up + more - 0.5, 10 + up + more + 0.5] for m, more in (("a", 0), ("b", 2))}
        for e, up in (("x", 0), ("y", 4))
    }
    values["x"]["only here"] = [90.0, 91.0]
    values["y"]["untrained"] = [3.0]
    # Sums of squares over 8 numbers: 8 * 2^2, 8 * 1^2, 8 * 0.5^2.
    shares = explained(values)
    total = 32 + 8 + 2
    assert shares == pytest.approx(
        {"encoder": 32 / total, "method": 8 / total, "encoder x method": 0.0, "seed": 2 / total}
    )
    crossed = {"x": {"a": [1.0, 1.0], "b": [3.0, 3.0]}, "y": {"a": [3.0, 3.0], "b": [1.0, 1.0]}}
    assert explained(crossed)["encoder x method"] == pytest.approx(1)


@pytest.mark.parametrize(
    "values",
    [
        {"x": {"a": [1.0, 2.0], "b": [1.0, 2.0]}},
        {"x": {"a": [1.0, 2.0]}, "y": {"a": [1.0, 2.0]}},
        {"x": {"a": [1.0], "b": [1.0]}, "y": {"a": [1.0], "b": [2.0]}},
        {"x": {"a": [1.0, 1.0], "b": [1.0, 1.0]}, "y": {"a": [1.0, 1.0], "b": [1.0, 1.0]}},
    ],
)
def test_what_cannot_be_shared_out_is_left_out(values):
    assert explained(values) == {}
    found = {"encoders": list(values), "metric": "mAP@10", "values": values, "refused": [], "explained": {}}
    assert not any("Variance" in line or "do not fit" in line for line in page(found))
