"""A table of addresses becomes a catalogue: pictures are fetched, addresses kept, missing pictures named."""

import csv
import io
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import lock_descriptor
from PIL import Image

from dqecir.data.catalogue import check_catalogue, read_catalogue
from dqecir.data.fetching import LEDGER, MISSING, fetch_pictures
from dqecir.data.images import load_image
from dqecir.data.picture_files import HALF_FETCHED, list_pictures
from dqecir.errors import CatalogueError, DataError
from dqecir.io.downloads import DownloadError
from dqecir.search.pictures import Pictures
from tests.data.test_exports import table


def picture(kind: str = "PNG", shade: int = 0) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 90)).save(written, kind)
    return written.getvalue()


class Web:
    """A downloader that returns given bytes or raises a given error for each address."""

    def __init__(self, content):
        self.content, self.asked = content, []

    def get(self, address: str) -> bytes:
        self.asked.append(address)
        found = self.content[address]
        if isinstance(found, BaseException):
            raise found
        return found


def source(folder: Path, text: str, name: str = "products.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def fetch(path: Path, out: Path, web: Web):
    return fetch_pictures(path, out, web, quiet=True)


def cells(out: Path) -> list[dict[str, str]]:
    with (out / "attributes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


GONE = DownloadError("the server answers 404")


def test_a_plain_table_becomes_a_catalogue(tmp_path):
    web = Web(
        {
            "https://a.example/red shoe.png?v=1": picture(),
            "https://a.example/p/2": picture("JPEG"),
            "https://a.example/5.gif": picture("GIF"),
            "https://a.example/w_1,h_2/x.png": picture(shade=9),
            "https://a.example/gone.png": GONE,
            "https://a.example/page.png": b"<html>not here</html>",
            "https://cdn.example/4.webp": picture("WEBP"),
        }
    )
    lines = [
        "Image_Link,additional image link,color",
        "https://a.example/red shoe.png?v=1,,red",
        'https://a.example/p/2,"https://a.example/w_1,h_2/x.png, https://a.example/gone.png",blue',
        "https://a.example/gone.png,https://a.example/red shoe.png?v=1 https://a.example/5.gif,green",
        "https://a.example/page.png,,black",
        "//cdn.example/4.webp,,white",
    ]
    web.content["https:" + "//cdn.example/4.webp"] = picture("WEBP")
    path = source(tmp_path / "from", "\n".join(lines))
    summary = fetch(path, tmp_path / "shop", web)
    rows = cells(tmp_path / "shop")
    assert [row["color"] for row in rows] == ["red", "blue", "green", "white"]
    assert [Path(row["Image_Link"]).suffix for row in rows] == [".png", ".jpg", ".gif", ".webp"]
    assert rows[0]["Image_Link"].startswith("images/red-shoe-")
    assert rows[2]["Image_Link"] in rows[2]["additional image link"]  # its own is gone
    assert rows[1]["Image_Link (address)"] == "https://a.example/p/2"
    assert "gone.png" in rows[1]["additional image link (address)"]
    assert (summary.fetched, summary.kept, summary.rows) == (5, 0, 4)
    assert summary.missing == (
        "line 3: https://a.example/gone.png: the server answers 404",
        "line 5: https://a.example/page.png: it is a web page or a drawing (SVG), not a picture",
        "line 5: the row is left out, because it has no picture",
    )
    assert (tmp_path / "shop" / MISSING).read_text().splitlines() == list(summary.missing)
    report = check_catalogue(tmp_path / "shop", decode=load_image)
    assert not report.problems
    assert report.roles["image_link (address)"] == "ignored"
    assert set(read_catalogue(tmp_path / "shop").attributes) == {"color"}


def test_an_export_stays_one(tmp_path):
    rows = [
        {
            "Handle": "hat",
            "Title": "Hat",
            "Vendor": "K",
            "Variant Price": "9",
            "Image Src": "https://a.example/1",
        },
        {"Handle": "hat", "Variant Price": "8"},
        {
            "Handle": "bag",
            "Title": "Bag",
            "Vendor": "L",
            "Variant Price": "7",
            "Image Src": "https://a.example/2",
        },
    ]
    web = Web({"https://a.example/1": picture(), "https://a.example/2": GONE})
    summary = fetch(source(tmp_path / "from", table(*rows)), tmp_path / "shop", web)
    assert summary.rows == 3
    report = check_catalogue(tmp_path / "shop")
    assert not report.problems
    assert report.counts["images"] == 1
    assert read_catalogue(tmp_path / "shop").attributes["price"] == ("8",)


def test_a_stopped_run_goes_on_and_a_new_export_fetches_what_is_new(tmp_path):
    addresses = [f"https://a.example/{number}.png" for number in range(4)]
    path = source(tmp_path / "from", "image,color\n" + "".join(f"{one},red\n" for one in addresses))
    out = tmp_path / "shop"
    web = Web(dict.fromkeys(addresses, picture()) | {addresses[1]: GONE, addresses[2]: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        fetch(path, out, web)
    assert not (out / "attributes.csv").exists()
    assert [(one.path.name, one.reason) for one in list_pictures(out).left_out] == [(LEDGER, HALF_FETCHED)]
    with (out / LEDGER).open("ab") as ledger:
        ledger.write(b'{"address": "https://a.ex')  # as a kill leaves it
    web = Web(dict.fromkeys(addresses, picture()))
    summary = fetch(path, out, web)
    assert web.asked == addresses[2:]
    assert (summary.fetched, summary.kept) == (2, 1)
    assert len(summary.missing) == 2
    assert HALF_FETCHED not in {one.reason for one in list_pictures(out).left_out}
    # What a finished run missed is asked for again, and what is gone from the folder is fetched again.
    first = cells(out)[0]["image"]
    (out / first).unlink()
    web = Web(dict.fromkeys(addresses, picture()))
    summary = fetch(path, out, web)
    assert web.asked == addresses[:2]
    assert (summary.fetched, summary.kept, summary.missing) == (2, 2, ())
    assert (out / first).is_file()
    assert not (out / MISSING).exists()
    new = source(tmp_path / "from", path.read_text() + "https://a.example/new.png,blue\n", "new.csv")
    web = Web({"https://a.example/new.png": picture()})
    assert (fetch(new, out, web).fetched, len(cells(out))) == (1, 5)


def test_a_picture_that_a_new_export_no_longer_names_is_not_indexed(tmp_path):
    old, changed, kept = (f"https://a.example/{name}" for name in ("1.png?v=1", "1.png?v=2", "2.png"))
    out = tmp_path / "shop"
    web = Web({address: picture(shade=shade) for shade, address in enumerate((old, changed, kept))})
    fetch(source(tmp_path / "from", f"image,color\n{old},red\n{kept},blue\n"), out, web)
    (first, _) = [row["image"] for row in cells(out)]
    fetch(source(tmp_path / "from", f"image,color\n{changed},red\n{kept},blue\n"), out, web)
    pictures = Pictures.of(out)
    assert {one.id for one in pictures.pictures} == {row["image"] for row in cells(out)}
    assert [(one.path, one.reason) for one in pictures.left_out] == [
        (out / first, "no row of attributes.csv names it: add a row to index it")
    ]


def test_a_host_that_does_not_answer_is_given_up(tmp_path):
    addresses = [f"https://down.example/{number}" for number in range(30)]
    path = source(
        tmp_path / "from", "image,color\nhttps://a.example/1,red\n" + "".join(f"{a},red\n" for a in addresses)
    )
    silent = DownloadError("the connection to down.example failed: refused (tried 4 times)", may_pass=True)
    web = Web(dict.fromkeys(addresses, silent) | {"https://a.example/1": picture()})
    summary = fetch(path, tmp_path / "shop", web)
    assert len(web.asked) == 11
    assert "down.example failed 10 times in a row and was not tried again" in summary.missing[10]
    noted = [json.loads(line) for line in (tmp_path / "shop" / LEDGER).read_text().splitlines() if line]
    assert not [entry for entry in noted if "failed" in entry]


def test_what_cannot_be_fetched_is_said(tmp_path):
    out = tmp_path / "shop"
    path = source(tmp_path / "from", "image,color\na.png,red\n")
    with pytest.raises(DataError, match="has no address of a picture"):
        fetch(path, out, Web({}))
    path = source(tmp_path / "from", "image,color\nhttps://a.example/1,red\n")
    with pytest.raises(DataError, match=r"none of the pictures could be fetched.*404"):
        fetch(path, out, Web({"https://a.example/1": GONE}))
    assert not (out / "attributes.csv").exists()
    says = "line 2: https://a.example/1: the server answers 404"
    assert (out / MISSING).read_text().splitlines() == [says]
    with pytest.raises(CatalogueError, match="cells, but the header has"):
        fetch(source(tmp_path / "from", "image,color\nhttps://a.example/1\n"), out, Web({}))
    mine = tmp_path / "mine"
    source(mine, "precious", "attributes.csv")
    with pytest.raises(DataError, match="name another folder"):
        fetch(path := source(tmp_path / "from", "image\nhttps://a.example/1\n"), mine, Web({}))
    with (out / LEDGER).open("ab") as other:
        assert lock_descriptor(other.fileno(), blocking=False)
        with pytest.raises(DataError, match="by another process"):
            fetch(path, out, Web({}))


def test_roles_that_a_user_tells_go_along(tmp_path):
    path = source(tmp_path / "from", "pic,link,color\nhttps://a.example/1,https://a.example/shop,red\n")
    (path.parent / "catalogue.yaml").write_text("table: products.csv\nroles: {pic: image, link: ignored}\n")
    fetch(path, tmp_path / "shop", Web({"https://a.example/1": picture()}))
    report = check_catalogue(tmp_path / "shop")
    assert not report.problems
    assert (report.roles["pic"], report.roles["link"]) == ("image", "ignored")


def test_the_command_fetches_from_this_machine_only_where_it_may(tmp_path, dqecir):
    web = tmp_path / "web"
    web.mkdir()
    (web / "a.png").write_bytes(picture())

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(web))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        path = source(tmp_path / "from", f"image,color\n{address}/a.png,red\n{address}/b.png,blue\n")
        command = ("catalogue", "fetch", path, "--out", tmp_path / "shop")
        code, _, err = dqecir(*command)
        assert code == 1
        assert (
            "127.0.0.1 is not an address of the public internet: to fetch from it, give --allow-private"
            in err
        )
        code, out, err = dqecir(*command, "--allow-private")
        server.shutdown()
    assert code == 0, err
    assert f"missing line 3: {address}/b.png: the server answers 404" in out
    assert "1 picture fetched, 0 were there; 1 row in" in out
    assert dqecir("catalogue", "check", tmp_path / "shop")[0] == 0
