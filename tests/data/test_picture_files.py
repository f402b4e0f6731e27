"""Which files of a folder are pictures, and why the others are left out."""

import os

import pytest
from openpyxl import Workbook
from PIL import Image

from dqecir.data.picture_files import UPLOADS_MARK, FileNames, list_pictures
from dqecir.index.engines import open_index
from dqecir.search.retriever import ComposedRetriever


def jpeg(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "JPEG")
    return path


def listed(root):
    found = list_pictures(root)
    left_out = {one.path.relative_to(root).as_posix(): one.reason for one in found.left_out}
    return [path.relative_to(root).as_posix() for path in found.pictures], left_out


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "a.JPEG",
        "a.jpe",
        "a.jfif",
        "a.dib",
        "a.jp2",
        "a.heic",
        "a.avif",
        "noending",
        "a.bak",
        "a.txt",
    ],
)
def test_a_picture_is_told_by_its_ending_or_by_its_first_bytes(tmp_path, name):
    jpeg(tmp_path / name)
    assert listed(tmp_path) == ([name], {})


def test_every_other_file_is_named_with_the_reason(tmp_path):
    for name in ("notes.txt", "clip.mp4", "scan.pdf", "raw.CR2", "drawing.svg", ".hidden.jpg", "empty"):
        (tmp_path / name).touch()
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "round.jpg").symlink_to("round.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    pictures, left_out = listed(tmp_path)
    assert pictures == []
    assert left_out["gone.jpg"] == "a link to a file that does not exist"
    assert left_out["pipe.jpg"] == "it is a pipe or a device, not a file"
    assert left_out[".hidden.jpg"] == "a hidden file"
    assert left_out["raw.CR2"] == "a raw file of a camera is not read: export it as JPEG"
    assert left_out["empty"] == left_out["notes.txt"] == "it is not a picture"
    assert {"clip.mp4", "scan.pdf", "drawing.svg", "round.jpg"} <= set(left_out)


@pytest.mark.parametrize(
    "folder", [".thumbnails", "@eaDir", "__MACOSX", "thumbs", "Thumbnails", ".git", "#recycle"]
)
def test_hidden_folders_and_those_of_thumbnails_are_left_out_by_rule(tmp_path, folder):
    jpeg(tmp_path / "a.jpg")
    jpeg(tmp_path / "shoes" / folder / "a.jpg")
    pictures, left_out = listed(tmp_path)
    assert pictures == ["a.jpg"]
    assert list(left_out) == [f"shoes/{folder}"]
    # A user who names such a folder means it.
    assert listed(tmp_path / "shoes" / folder)[0] == ["a.jpg"]


def test_links_to_folders_indexes_and_uploads_are_left_out(tmp_path):
    shop = tmp_path / "shop"
    jpeg(shop / "a.jpg")
    jpeg(tmp_path / "elsewhere" / "b.jpg")
    (shop / "link").symlink_to(tmp_path / "elsewhere")
    jpeg(shop / "put" / "c.jpg")
    (shop / "put" / UPLOADS_MARK).touch()
    jpeg(shop / "index-uploads" / "d.jpg")
    jpeg(shop / "index" / "e.jpg")
    (shop / "index" / "manifest.json").write_text('{"engine": "exact"}')
    pictures, left_out = listed(shop)
    assert pictures == ["a.jpg"]
    assert list(left_out) == ["index", "index-uploads", "link", "put"]


def test_a_name_finds_its_file_behind_links_too(tmp_path):
    jpeg(tmp_path / "elsewhere" / "Café.jpg")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "shop" / "loop").symlink_to(tmp_path / "shop")
    names = FileNames(tmp_path / "shop")
    assert names.find("./link//Café.jpg") == names.find("LINK\\CAFE\u0301.JPG") == ["link/Café.jpg"]
    assert (
        names.find("link/b.jpg") == names.find("x" * 9999) == names.find("\0") == names.find("\ud800") == []
    )
    assert names.of_last_part("café.jpg") == ["link/Café.jpg"]


def test_an_index_names_what_it_leaves_out(tmp_path, model_folder):
    jpeg(tmp_path / "shop" / "a.jpg")
    (tmp_path / "shop" / "attributes.csv").write_text("image,color\na.jpg,red\n")
    (tmp_path / "shop" / "catalogue.yaml").write_text("roles: {}\n")
    (tmp_path / "shop" / "b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1")
    (tmp_path / "shop" / "other.csv").write_text("a,b\n1,2\n")
    retriever = ComposedRetriever.from_pretrained(model_folder)
    summary = retriever.build_index(tmp_path / "shop", tmp_path / "index", quiet=True)
    assert summary.indexed == 1
    assert [refusal.path.name for refusal in summary.refusals] == ["other.csv", "b.heic"]


def test_a_raw_file_is_named_as_one_although_it_begins_like_a_picture(tmp_path):
    for name in ("a.CR2", "b.dng", "c.nef"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "TIFF")
    reason = "a raw file of a camera is not read: export it as JPEG"
    assert listed(tmp_path) == ([], dict.fromkeys(("a.CR2", "b.dng", "c.nef"), reason))


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF", "GIF", "WEBP", "PNG", "JPEG", "JPEG2000", "AVIF"])
def test_a_picture_without_an_ending_is_known_by_its_bytes(tmp_path, kind):
    Image.new("RGB", (4, 4)).save(tmp_path / "picture", kind)
    assert listed(tmp_path) == (["picture"], {})


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    jpeg(tmp_path / "a.jpg")
    jpeg(tmp_path / "locked" / "b.jpg")

    stat, scandir, locked = os.stat, os.scandir, str(tmp_path / "locked")

    def refused_stat(path, **options):
        if str(path).startswith(locked + os.sep):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    def refused_scandir(path):
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "stat", refused_stat)
    monkeypatch.setattr(os, "scandir", refused_scandir)
    assert listed(tmp_path) == (["a.jpg"], {"locked": "the folder cannot be read (Permission denied)"})


def test_a_sheet_of_a_workbook_is_chosen(tmp_path, dqecir, model_folder):
    jpeg(tmp_path / "shop" / "a.jpg")
    book = Workbook()
    book.active.append(("about", "this file"))
    sheet = book.create_sheet("Products")
    sheet.append(("Image", "Color", "Price"))
    sheet.append(("A.JPG", "red", 39.9))
    book.save(tmp_path / "shop" / "attributes.xlsx")
    code, out, _ = dqecir("catalogue", "check", tmp_path / "shop")
    assert (code, "has no column image" in out) == (1, True)
    code, out, _ = dqecir("catalogue", "check", tmp_path / "shop", "--sheet-name", "Products")
    assert code == 0
    assert out.splitlines()[-4:-1] == ["image [image]", "color [attribute]: red 1", "price [price]: 39.9 1"]
    arguments = ["--images", tmp_path / "shop", "--out", tmp_path / "index", "--model", model_folder]
    assert dqecir("index", "build", *arguments, "--sheet-name", "Products")[0] == 0
    assert open_index(tmp_path / "index").payload("a.jpg")["price"] == "39.9"


def test_a_table_of_another_name_is_used_where_it_names_pictures(tmp_path, model_folder):
    jpeg(tmp_path / "a.jpg")
    (tmp_path / "products.csv").write_text("Image;Color\nA.JPG;red\n")
    (tmp_path / "index").mkdir()
    retriever = ComposedRetriever.from_pretrained(model_folder)
    summary = retriever.build_index(tmp_path, tmp_path / "i", quiet=True)
    assert summary.refusals == ()
    assert retriever.index.payload("a.jpg")["color"] == "red"
