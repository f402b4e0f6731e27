"""Rejected input gives a one-sentence error, and no data are lost."""

import errno
import io
import os
import subprocess
import sys

import pytest
from PIL import Image

from dqecir import cli
from dqecir.search.retriever import ComposedRetriever


@pytest.fixture
def shop(tmp_path, model_folder):
    """Return a folder of pictures with odd names, and its index."""
    (tmp_path / "shop").mkdir()
    for number, name in enumerate((":smile:.png", "日本.png", "[red]a.png", "b.png")):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(tmp_path / "shop" / name)
    retriever = ComposedRetriever.from_pretrained(model_folder)
    retriever.build_index(tmp_path / "shop", tmp_path / "index", quiet=True)
    return tmp_path


def search(shop, model_folder):
    return ["search", "--index", shop / "index", "--model", model_folder, "--image", shop / "shop" / "b.png"]


def test_ids_are_printed_as_they_are(dqecir, shop, model_folder):
    code, out, _ = dqecir(*search(shop, model_folder))
    assert code == 0
    assert sorted(line.split("  ")[-1] for line in out.splitlines()) == [
        ":smile:.png",
        "[red]a.png",
        "日本.png",
    ]


def test_an_id_is_printed_on_one_line_without_commands_for_the_terminal(dqecir, tmp_path, model_folder):
    names = ("new\nline.png", "tab\t.png", "\x1b[31mred.png", "back\u202egnp.png", "👩\u200d🦰.png")
    folder = tmp_path / "shop"
    folder.mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(folder / name)
    (folder / "bad\n.png").write_text("x")
    build = ["index", "build", "--images", folder, "--out", tmp_path / "index", "--model", model_folder]
    assert f"left out {folder}/bad\\n.png: " in dqecir(*build)[1]
    out = dqecir("search", "--index", tmp_path / "index", "--model", model_folder, "--text", "red")[1]
    printed = {line.split("  ")[-1] for line in out.splitlines()}
    assert {r"new\nline.png", r"tab\t.png", r"\x1b[31mred.png", r"back\u202egnp.png", names[-1]} <= printed


def test_damaged_metadata_print_no_warnings_of_libraries(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif.tobytes()[:-8] + b"\xff" * 6)
    (tmp_path / "attributes.csv").write_text("image,color\na.jpg,red\n")
    command = [sys.executable, "-m", "dqecir", "catalogue", "check", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stderr, "can be used" in done.stdout) == ("", True)


def test_a_sheet_that_cannot_be_drawn_takes_no_results_away(dqecir, shop, model_folder):
    (shop / "shop" / "[red]a.png").unlink()
    code, out, err = dqecir(*search(shop, model_folder), "--sheet", shop / "s.png")
    assert (code, len(out.splitlines())) == (1, 3)
    assert "the sheet cannot show the item '[red]a.png' (there is no such file): name the new folder" in err
    assert not (shop / "s.png").exists()


def test_an_output_that_cannot_show_an_id_gets_its_numbers(monkeypatch, shop, model_folder):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    monkeypatch.setattr(sys, "argv", ["dqecir", *map(str, search(shop, model_folder))])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert rb"\u65e5\u672c.png" in written.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        ["catalogue", "render", "{file}/c", "--items", "3"],
        ["index", "build", "--images", "{shop}/shop", "--model", "{model}", "--out", "{file}/i"],
        ["index", "move", "{shop}/index", "{file}/i", "--engine", "exact"],
        ["search", "--index", "{shop}/index", "--model", "{model}", "--image", "{shop}/shop/b.png"]
        + ["--sheet", "{file}/s.png"],
    ],
)
def test_a_place_that_cannot_be_written_to_is_one_sentence(dqecir, shop, model_folder, arguments):
    file = shop / "file"
    file.write_text("mine")
    filled = [part.format(shop=shop, file=file, model=model_folder) for part in arguments]
    code, _, err = dqecir(*filled)
    assert code == 1
    assert "dqecir: " in err and "Traceback" not in err
    assert "name another folder" in err
    assert file.read_text() == "mine"


def test_a_full_disk_is_one_sentence_and_the_index_stays(dqecir, shop, model_folder, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        arguments = [
            "index",
            "build",
            "--images",
            shop / "shop",
            "--model",
            model_folder,
            "--out",
            shop / "index",
        ]
        code, _, err = dqecir(*arguments)
    assert code == 1
    assert "No space left on device; free some space" in err
    assert dqecir(*search(shop, model_folder))[0] == 0


def test_a_closed_pipe_ends_without_a_word(shop):
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-c", "from dqecir.cli import main; main()", "index", "info", "--index"]
    ended = subprocess.run([*command, shop / "index"], stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    assert (ended.returncode, ended.stderr) == (1, b"")
