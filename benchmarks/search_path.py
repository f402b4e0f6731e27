"""Count the calls between files that one search makes: ``python -m benchmarks.search_path``.

A call counts once, however often it is made, if its caller and its callee are in different files of
``service/``, ``search/`` and ``model/``. Calls below the public functions of other rooms do not count.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from starlette.testclient import TestClient

import dqecir
from dqecir.search.retriever import ComposedRetriever
from dqecir.service.app import create_app
from dqecir.service.configuration import ServiceSettings
from dqecir.synthetic.garments import GARMENTS

PACKAGE = Path(dqecir.__file__).parent
BETWEEN = ("torch/utils/_contextlib.py", "contextlib.py")
ROOMS = ("service/", "search/", "model/")


def file_of(frame: FrameType | None) -> str:
    """Return the file of a frame, relative to the package; empty for one of another package."""
    if frame is None or not frame.f_code.co_filename.startswith(str(PACKAGE)):
        return ""
    return Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix()


def calls_of_a_search(folder: Path) -> set[tuple[str, str]]:
    """Return the calls of a search with a text, a filter, a weight and steering, over drawn garments."""
    pictures = GARMENTS.write(folder / "garments", items=120, seed=1, size=64, quiet=True)
    ComposedRetriever.from_pretrained().build_index(pictures, folder / "index", quiet=True)
    found: set[tuple[str, str]] = set()
    counting = threading.Event()

    def note(frame: FrameType, event: str, _: Any) -> None:
        callee = file_of(frame)
        if event != "call" or not counting.is_set() or not callee.startswith(ROOMS):
            return
        back = frame.f_back
        # A decorator or a context manager stands between some callers and what they call.
        while back is not None and back.f_code.co_filename.endswith(BETWEEN):
            back = back.f_back
        caller = file_of(back)
        if back is not None and caller.startswith(ROOMS) and caller != callee:
            names = back.f_code.co_qualname, frame.f_code.co_qualname
            found.add((f"{caller}: {names[0]}", f"{callee}: {names[1]}"))

    # Before the service starts its threads.
    threading.setprofile(note)
    with TestClient(
        create_app(ServiceSettings(index=folder / "index")), base_url="http://127.0.0.1"
    ) as client:
        items = [item["id"] for item in client.get("/v1/items", params={"limit": 3}).json()["items"]]
        body = {
            "item": items[0],
            "text": "is red and has long sleeves",
            "where": "not garment = hat",
            "weights": {"colour": 2},
            "more": items[1:2],
            "less": items[2:],
        }
        for counted in (False, True):  # the first one fills what is kept
            if counted:
                counting.set()
            client.post("/v1/search", json=body).raise_for_status()
            counting.clear()
    threading.setprofile(None)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        calls = sorted(calls_of_a_search(Path(work)))
    for caller, callee in calls:
        print(f"{caller} -> {callee}")
    print(f"{len(calls)} calls", file=sys.stderr)
