"""Figures of models: the written files, and errors."""

import pytest
from PIL import Image

from dqecir.errors import DataError
from dqecir.experiments.figures import draw_figures, models_named


@pytest.fixture
def folders(model, tmp_path):
    found = {}
    for name, method in (("values", "dqe_values"), ("sum", "image_plus_text")):
        found[name] = tmp_path / "models" / name
        model.with_method(method, {}).eval().save_pretrained(found[name])
    return found


def test_every_figure_is_a_picture_and_weights_are_drawn_where_there_are_some(
    folders, garments_folder, tmp_path
):
    written = draw_figures(folders, garments_folder, tmp_path / "out", questions=60, per_attribute=2)
    names = {path.name for path in written}
    assert {"zone.png", "weights-values.png"} <= names and "weights-sum.png" not in names
    assert {"answers-shape.png", "answers-pattern.png"} <= names  # few ask of colour alone
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 10, path.name


def test_the_command_writes_them_and_names_them(dqecir, folders, garments_folder, tmp_path):
    given = [part for name, folder in folders.items() for part in ("--model", f"{name}={folder}")]
    code, out, err = dqecir(
        "figures", *given, "--data", garments_folder, "--out", tmp_path / "out", "--questions", "40"
    )
    assert code == 0, err
    assert "zone.png" in out and (tmp_path / "out" / "weights-values.png").exists()


def test_models_are_named_apart(tmp_path):
    assert models_named(["a=x/y", "z/b"]) == {"a": tmp_path.__class__("x/y"), "b": tmp_path.__class__("z/b")}
    with pytest.raises(DataError, match="give them different names"):
        models_named(["x/last", "y/last"])


def test_no_model_is_refused(garments_folder, tmp_path):
    with pytest.raises(DataError, match="at least one model"):
        draw_figures({}, garments_folder, tmp_path)
