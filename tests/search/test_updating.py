"""An index follows its catalogue: only new pictures are encoded, and items added in other ways stay."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from dqecir import ComposedRetriever
from dqecir.data.payload_fields import RESERVED
from dqecir.data.picture_files import UPLOADS_MARK
from dqecir.errors import EngineError
from dqecir.index.contract import ItemBatch
from dqecir.index.exact import ExactIndex
from tests.conftest import tiny_model

NUMBERS = range(6)


@pytest.fixture
def retriever() -> ComposedRetriever:
    return ComposedRetriever(tiny_model().with_method("dqe", {}))


@pytest.fixture
def encoded(retriever, monkeypatch) -> list[int]:
    """Return a list to which each call of the tower adds its number of pictures."""
    counts: list[int] = []
    tokens = retriever.model.backbone.image_tokens

    def counted(pixels):
        counts.append(len(pixels))
        return tokens(pixels)

    monkeypatch.setattr(retriever.model.backbone, "image_tokens", counted)
    return counts


def draw(path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, 9, 99)).save(path)


def write_table(shop, rows: dict[int, str]) -> None:
    lines = [f"images/{number}.png,{cells}" for number, cells in rows.items()]
    (shop / "attributes.csv").write_text("\n".join(["image,color,price,stock", *lines]))


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "shop"
    for number in NUMBERS:
        draw(folder / "images" / f"{number}.png", 40 * number)
    write_table(folder, {number: f"red,{number + 1},{number}" for number in NUMBERS})
    return folder


def counts(summary) -> tuple[int, ...]:
    return (
        summary.new,
        summary.pictures_changed,
        summary.rows_changed,
        summary.removed,
        summary.unchanged,
        summary.kept,
    )


def same_as_built(retriever, shop, tmp_path) -> bool:
    """Return whether the open index equals a newly built one."""
    built = ComposedRetriever(retriever.model)
    built.build_index(shop, tmp_path / "again", quiet=True)
    own = dict(retriever.index.entries())
    ids = sorted(own)
    return own == dict(built.index.entries()) and torch.equal(
        retriever.index.tokens(ids), built.index.tokens(ids)
    )


def test_a_new_export_changes_what_it_says_and_encodes_what_is_new(retriever, encoded, shop, tmp_path):
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    encoded.clear()
    assert counts(retriever.update_index(shop, quiet=True)) == (0, 0, 0, 0, 6, 0)
    # 0 is gone, 1 costs more and 2 is sold out, 3 has another picture, 6 is new.
    (shop / "images" / "0.png").unlink()
    draw(shop / "images" / "3.png", 250)
    draw(shop / "images" / "6.png", 251)
    rows = {number: f"red,{number + 1},{number}" for number in range(1, 7)}
    write_table(shop, {**rows, 1: "red,99,1", 2: "red,3,0"})
    before = retriever.index.tokens(["images/1.png"])
    assert not encoded
    reader = ExactIndex.open(tmp_path / "index")
    assert counts(retriever.update_index(shop, quiet=True)) == (1, 1, 2, 1, 2, 0)
    assert sum(encoded) == 2
    assert torch.equal(retriever.index.tokens(["images/1.png"]), before)
    # Other payloads keep their vectors, and so their places.
    assert retriever.index.ids() == [f"images/{number}.png" for number in (1, 2, 4, 5, 3, 6)]
    assert reader.payload("images/1.png")["price"] == "2"  # it searches what was open
    reader.refresh()
    assert reader.payload("images/1.png")["price"] == "99"
    assert same_as_built(retriever, shop, tmp_path)
    found = retriever.search(shop / "images" / "1.png", k=10)
    assert "images/2.png" not in {result.id for result in found.results}
    assert found.sold_out_hidden == 1


def test_a_product_that_the_table_no_longer_has_is_removed_and_its_picture_named(retriever, shop, tmp_path):
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    write_table(shop, {number: f"red,{number + 1},{number}" for number in (1, 2, 3)})
    summary = retriever.update_index(shop, quiet=True)
    assert counts(summary) == (0, 0, 0, 3, 3, 0)
    assert [(one.path.name, one.reason) for one in summary.refusals] == [
        (f"{number}.png", "no row of attributes.csv names it: add a row to index it") for number in (0, 4, 5)
    ]
    assert same_as_built(retriever, shop, tmp_path)


def test_a_catalogue_without_its_table_is_refused(retriever, shop, tmp_path):
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    table = (shop / "attributes.csv").rename(tmp_path / "attributes.csv")
    with pytest.raises(EngineError, match=r"has no table any more, .*: put the table back"):
        retriever.update_index(shop, quiet=True)
    assert retriever.index.payload("images/1.png")["price"] == "2"
    table.rename(shop / "attributes.csv")
    assert counts(retriever.update_index(shop, quiet=True)) == (0, 0, 0, 0, 6, 0)


def test_a_stopped_update_is_finished_by_the_next(retriever, encoded, shop, tmp_path, monkeypatch):
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    draw(shop / "images" / "6.png", 251)
    (shop / "images" / "5.png").unlink()
    write_table(shop, {**dict.fromkeys(range(5), "blue,1,1"), 6: "blue,1,1"})

    def stopping(payloads):
        raise KeyboardInterrupt

    monkeypatch.setattr(retriever.index, "change_payloads", stopping)
    with pytest.raises(KeyboardInterrupt):
        retriever.update_index(shop, quiet=True)
    encoded.clear()
    again = ComposedRetriever(retriever.model).open_index(tmp_path / "index")
    assert counts(again.update_index(shop, quiet=True)) == (0, 0, 5, 1, 1, 0)
    assert not encoded
    assert same_as_built(again, shop, tmp_path)


def test_what_was_put_or_added_from_elsewhere_stays(retriever, shop, tmp_path):
    retriever.build_index(shop, shop / "index", quiet=True)
    uploads = shop / "index-uploads"
    draw(uploads / "put.png", 77)
    (uploads / UPLOADS_MARK).touch()
    more = tmp_path / "more"
    draw(more / "other.png", 78)
    retriever.add_pictures(more, quiet=True)
    tokens = retriever.index.tokens(["images/0.png"])
    for item_id in ("put", "images/1.png"):
        retriever.index.add(
            ItemBatch([item_id], tokens, [{"path": str(uploads / "put.png"), "color": "put"}])
        )
    retriever.index.add(ItemBatch(["far"], tokens, [{"path": "s3://bucket/shop/0.png"}]))
    assert counts(retriever.update_index(shop, quiet=True)) == (0, 0, 0, 0, 5, 4)
    assert retriever.index.payload("images/1.png")["color"] == "put"
    assert {"put", "far", "other.png"} <= set(retriever.index.ids())


def test_a_picture_that_cannot_be_used_any_more_is_named_and_removed(retriever, shop, tmp_path):
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    (shop / "images" / "4.png").write_text("broken")
    summary = retriever.update_index(shop, quiet=True)
    assert counts(summary) == (0, 0, 0, 1, 5, 0)
    assert [refusal.path.name for refusal in summary.refusals] == ["4.png"]
    draw(shop / "images" / "4.png", 160)
    assert counts(retriever.update_index(shop, quiet=True)) == (1, 0, 0, 0, 5, 0)


def test_a_moved_catalogue_is_followed_and_another_one_is_refused(retriever, encoded, shop, tmp_path):
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    encoded.clear()
    moved = shop.rename(tmp_path / "moved")
    assert counts(retriever.update_index(moved, quiet=True)) == (0, 0, 0, 0, 6, 0)
    assert not encoded
    payload = retriever.index.payload("images/0.png")
    assert retriever.index.picture_path(payload) == moved / "images" / "0.png"
    draw(tmp_path / "other" / "pictures" / "a.png", 5)
    with pytest.raises(EngineError, match="belongs to another catalogue"):
        retriever.update_index(tmp_path / "other", quiet=True)
    assert len(retriever.index) == 6


def test_the_command_counts_and_keeps_its_own_fields_to_itself(dqecir, shop, model_folder, tmp_path):
    index, model = tmp_path / "index", ("--model", model_folder)
    assert dqecir("index", "build", "--images", shop, "--out", index, *model)[0] == 0
    write_table(shop, dict.fromkeys(NUMBERS[:3], "blue,1,1"))
    for number in NUMBERS[3:]:
        (shop / "images" / f"{number}.png").unlink()
    code, out, err = dqecir("catalogue", "update", shop, "--index", index, *model)
    assert code == 0, err
    assert "0 new, 0 pictures changed, 3 rows changed, 3 removed, 0 unchanged" in out
    assert "warnings" not in err
    write_table(shop, {0: "blue,1,1", 1: "blue,n/a,1", 2: "n/a,1,1"})
    says = f"warnings about the table: 2; dqecir catalogue check {shop} lists them"
    for command in (("catalogue", "update", shop, "--index"), ("index", "build", "--images", shop, "--out")):
        code, _, err = dqecir(*command, index, *model)
        assert (code, says in err) == (0, True)
    write_table(shop, dict.fromkeys(NUMBERS[:3], "blue,1,1"))
    shutil.copy(shop / "images" / "0.png", tmp_path / "a.png")
    out = dqecir("search", "--index", index, "--image", tmp_path / "a.png", "--json", *model)[1]
    answers = json.loads(out)["answers"]
    assert {len(RESERVED & answer["attributes"].keys()) for answer in answers} == {0}


KILLED = """
import os, signal, sys
from pathlib import Path
from dqecir import ComposedRetriever
from dqecir.index.exact import ExactIndex

shop, index, model, *moments = sys.argv[1:]
retriever = ComposedRetriever.from_pretrained(Path(model))
for moment in map(int, moments):
    child = os.fork()
    if child == 0:
        add = ExactIndex.add

        def counted(self, batch, instead_of=()):
            left = iter(range(moment))
            sys.setprofile(lambda *_: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))
            add(self, batch, instead_of)

        ExactIndex.add = counted
        retriever.open_index(index).update_index(shop, quiet=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
MOMENTS = (1, 40, 150, 400, 800, 1600, 3200)
"""Calls of functions within an addition, after which an update is killed."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_an_update_that_is_killed_at_any_moment_disturbs_no_search(shop, model_folder, tmp_path):
    retriever = ComposedRetriever.from_pretrained(model_folder)
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    before = dict(retriever.index.entries())
    for number, shade in ((0, 5), (6, 250), (7, 251)):
        draw(shop / "images" / f"{number}.png", shade)
    (shop / "images" / "5.png").unlink()
    write_table(shop, {**dict.fromkeys(range(5), "blue,9,0"), 6: "blue,9,1", 7: "green,9,1"})
    retriever.build_index(shop, tmp_path / "right", quiet=True)
    after = dict(retriever.index.entries())
    reader = ExactIndex.open(tmp_path / "index")
    queries = retriever.encode_query([shop / "images" / "1.png"], ["is red"])
    command = [sys.executable, "-c", KILLED, shop, tmp_path / "index", model_folder, *map(str, MOMENTS)]
    searches = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            reader.refresh()
            [hits] = reader.search(queries, 10)
            searches += 1
            assert len({hit.id for hit in hits}) == len(hits) >= 5
            for hit in hits:
                assert hit.payload in (before.get(hit.id), after.get(hit.id))
        codes = process.stdout.read().split()
    assert codes[0] == str(-signal.SIGKILL)
    assert len(codes) == len(MOMENTS)
    assert set(codes) <= {"0", str(-signal.SIGKILL)}
    assert searches > len(MOMENTS)
    again = ComposedRetriever.from_pretrained(model_folder).open_index(tmp_path / "index")
    again.update_index(shop, quiet=True)
    assert dict(again.index.entries()) == after
    ids = sorted(after)
    assert torch.equal(again.index.tokens(ids), retriever.index.tokens(ids))
