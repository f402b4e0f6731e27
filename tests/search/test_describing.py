"""Descriptions: one line for each picture, complete files, and errors."""

import json
import os

import pytest
import torch
from PIL import Image

from dqecir.errors import DataError
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.model.composed_model import ComposedModel
from dqecir.model.describer import Describer
from dqecir.search.describing import COLUMN_SETS, describe_pictures

PHOTOS = ["garment", "color", "pattern", "print", "sleeves", "length", "neck"]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place in range(3):
        Image.new("RGB", (60, 80), (80 * place, 10, 90)).save(folder / f"{place}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (folder / "empty.png").touch()
    (folder / "table.csv").write_text("image\n")
    return folder


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_is_described_line_by_line(dqecir, pictures, tmp_path):
    out = tmp_path / "out.jsonl"
    code, printed, _ = dqecir("describe", pictures, "--out", out)
    assert code == 0
    assert "3 pictures described" in printed
    assert "table.csv: it is not a picture" in printed
    lines = lines_of(out)
    assert [line["path"] for line in lines] == [
        str(pictures / name) for name in ("0.png", "1.png", "2.png", "broken.jpg", "empty.png")
    ]
    known = Describer.from_pretrained().heads.config.columns
    for line in lines[:3]:
        assert list(line) == ["path", "attributes"]
        assert list(line["attributes"]) == PHOTOS
        for column, told in line["attributes"].items():
            assert set(told) == {"value", "probability"}
            assert told["value"] in known[column]
            assert 0 < told["probability"] <= 1
    for line in lines[3:]:
        assert list(line) == ["path", "error"]
        assert isinstance(line["error"], str)


def test_files_are_described_alone_and_once(model_folder, pictures, tmp_path):
    out = tmp_path / "out.jsonl"
    model = ComposedModel.from_pretrained(model_folder)
    count, _ = describe_pictures(
        [pictures / "1.png", pictures, pictures / "1.png"], Describer.of(model), out, quiet=True
    )
    assert count == 3
    assert [line["path"] for line in lines_of(out)][:2] == [str(pictures / "1.png"), str(pictures / "0.png")]
    assert len(lines_of(out)) == 5


def test_a_picture_and_its_mirror_image_are_described_alike(model, pictures, tmp_path):
    shade = Image.linear_gradient("L").resize((40, 60)).rotate(90).convert("RGB")
    shade.save(tmp_path / "left.png")
    shade.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "right.png")
    out = tmp_path / "out.jsonl"
    describe_pictures([tmp_path / "left.png", tmp_path / "right.png"], Describer.of(model), out, quiet=True)
    left, right = (line["attributes"] for line in lines_of(out))
    for column in left:
        assert left[column]["probability"] == pytest.approx(right[column]["probability"], abs=2e-4)


def with_columns(model, columns):
    """Return the model with other heads, of ``columns``."""
    heads = model.heads
    values = dict.fromkeys(columns, heads.config.columns["color"])
    torch.manual_seed(1)
    model.heads = AttributeHeads(HeadsConfig(token_width=16, columns=values)).eval()
    return model


def test_columns_of_products_are_written_under_the_table_s_own_names(model, pictures, tmp_path):
    out = tmp_path / "out.jsonl"
    both = [*PHOTOS, *COLUMN_SETS["products"].values()]
    describe_pictures([pictures], Describer.of(with_columns(model, both)), out, "products", quiet=True)
    assert set(lines_of(out)[0]["attributes"]) == {"kind", "article", "color", "usage", "gender"}
    describe_pictures([pictures], Describer.of(model), out, quiet=True)
    assert list(lines_of(out)[0]["attributes"]) == PHOTOS


def test_a_model_of_other_columns_tells_its_own(model, pictures, tmp_path):
    out = tmp_path / "out.jsonl"
    other = Describer.of(with_columns(model, ["material", "color"]))
    describe_pictures([pictures], other, out, quiet=True)
    assert list(lines_of(out)[0]["attributes"]) == ["material", "color"]
    out.unlink()
    with pytest.raises(DataError, match=r"photos \(garment, pattern.*its own columns \(material, color\)"):
        describe_pictures([pictures], other, out, "photos", quiet=True)
    assert not out.exists()


def test_what_is_wrong_is_one_sentence(dqecir, model_folder, pictures, tmp_path):
    out = tmp_path / "out.jsonl"
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        ((empty, "--out", out), "there is no picture in"),
        ((tmp_path / "nowhere", "--out", out), "there is no file or folder"),
        ((pictures, "--out", tmp_path / "no" / "out.jsonl"), "does not exist: create it"),
        (
            (pictures, "--out", out, "--columns", "products", "--model", model_folder),
            "does not predict the columns of products",
        ),
        ((pictures, "--out", out, "--model", empty), "is not a model folder"),
    ]
    for arguments, message in cases:
        code, _, err = dqecir("describe", *arguments)
        assert (code, message in err) == (1, True), (arguments, err)
        assert not out.exists()
    assert dqecir("describe", pictures, "--out", out, "--columns", "shoes")[0] == 2


def test_a_folder_of_broken_pictures_is_all_errors(model, pictures, tmp_path):
    for name in ("0.png", "1.png", "2.png"):
        (pictures / name).unlink()
    out = tmp_path / "out.jsonl"
    count, left_out = describe_pictures([pictures], Describer.of(model), out, quiet=True)
    assert count == 0
    assert len(left_out) == 3
    assert all(set(line) == {"path", "error"} for line in lines_of(out))


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps names as Unicode")
def test_a_name_that_is_not_utf8_is_written(model, pictures, tmp_path):
    odd = os.fsdecode(b"odd\xff.png")
    try:
        (pictures / "0.png").rename(pictures / odd)
    except OSError:
        pytest.skip("this file system keeps names as Unicode")
    out = tmp_path / "out.jsonl"
    describe_pictures([pictures / odd], Describer.of(model), out, quiet=True)
    assert lines_of(out)[0]["path"] == str(pictures / odd)


def test_a_set_is_told_in_its_own_spellings(model, pictures, tmp_path):
    """A model may predict watches, which are not a garment of the photos."""
    values = {column: model.heads.config.columns[column] for column in PHOTOS}
    values["garment"] = (*values["garment"], "watch")
    torch.manual_seed(1)
    model.heads = AttributeHeads(HeadsConfig(token_width=16, columns=values)).eval()
    with torch.no_grad():
        model.heads.classifiers[0].bias[-1] = 50.0
    assert (
        Describer.of(model).probabilities(torch.zeros(1, 3, 32, 32))["garment"].argmax()
        == len(values["garment"]) - 1
    )
    out = tmp_path / "out.jsonl"
    describe_pictures([pictures / "0.png"], Describer.of(model), out, quiet=True)
    told = lines_of(out)[0]["attributes"]["garment"]
    assert told["value"] in values["garment"][:-1] and 0 < told["probability"] <= 1


def test_the_shipped_model_tells_both_sets():
    columns = Describer.from_pretrained().heads.config.columns
    for own in COLUMN_SETS.values():
        assert set(own.values()) <= set(columns)
