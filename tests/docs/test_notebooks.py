"""Notebooks are complete, contain no outputs, and run from the first cell to the last on small data."""

import json
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from tests.docs.blocks import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells_of(path):
    read = json.loads(path.read_text(encoding="utf-8"))
    assert (read["nbformat"], read["nbformat_minor"]) == (4, 5)
    return read["cells"]


@pytest.fixture
def address(garments_folder):
    """Yield the address of a local server that shows the drawn catalogue."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=os.fspath(garments_folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_output_is_kept(path):
    cells = cells_of(path)
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), f"{path.name}, {cell['id']}", "exec")


def test_photos_lead_from_a_download_to_a_table_and_a_figure(
    address, garments_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    work = tmp_path / "photos"
    known = {}
    for cell in cells_of(ROOT / "docs" / "notebooks" / "photos.ipynb"):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), known)
            if "parameters" in cell["metadata"].get("tags", ()):
                assert (ROOT / "docs" / "notebooks" / known["LABELS"]).is_file()
                known |= {"ADDRESS": address, "LABELS": garments_folder / "attributes.csv", "PRIVATE": True}
    shown = capsys.readouterr().out
    rows = (garments_folder / "attributes.csv").read_text().splitlines()
    count = sum(",val," in row for row in rows)
    assert f"{count} pictures fetched, 0 were there, 0 are missing" in shown
    assert "| oracle, full | " in (work / "table.md").read_text() and "questions, percent" in shown
    for name in ("figure.png", "sheet.png"):
        assert min(Image.open(work / name).size) > 100
