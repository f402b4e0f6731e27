"""Write a tiny model folder and an index with the imported version of dqecir.

    git worktree add ../written TAG && cd ../written
    PYTHONPATH=src:. python ../dqecir/tests/compatibility/write.py ../dqecir/tests/compatibility/VERSION

It is run once, when a version is released. Other versions of the package open what it wrote.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from PIL import Image

import dqecir
from dqecir import ComposedModel, ComposedRetriever
from tests.conftest import tiny_model

COLOURS = ("red", "blue", "green", "yellow", "black", "white")
TEXT = "is blue and has long sleeves"


def write(out: Path) -> None:
    """Write ``catalogue``, ``model``, ``index`` and ``expected.json`` into ``out``."""
    images = out / "catalogue" / "images"
    images.mkdir(parents=True)
    rows = ["image,color,price"]
    for number, colour in enumerate(COLOURS):
        picture = Image.new("RGB", (32, 32), colour)
        picture.paste("grey", (4 * number, 8, 4 * number + 8, 24))
        picture.save(images / f"{number}.png")
        rows.append(f"images/{number}.png,{colour},{10 * (number + 1)}")
    (out / "catalogue" / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    torch.manual_seed(1)
    tiny_model().with_method("dqe_values", {}).save_pretrained(out / "model", half=True)
    # A folder without the text reader, of 9 MB, reads by the package's own.
    shutil.rmtree(out / "model" / "reader", ignore_errors=True)
    retriever = ComposedRetriever(ComposedModel.from_pretrained(out / "model"))
    retriever.build_index(out / "catalogue", out / "index", quiet=True)
    reference = images / "0.png"
    expected = {
        "version": dqecir.__version__,
        "query": retriever.encode_query([reference], [TEXT])[0].flatten()[:8].tolist(),
    }
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    written = Path(sys.argv[1])
    write(written)
    # An index holds where its pictures were; the place that is kept says nothing of a machine.
    root = written / "index" / "pictures.json"
    kept = f"/srv/dqecir-{dqecir.__version__}/catalogue"
    facts = json.loads(root.read_text(encoding="utf-8")) | {"root": kept}
    root.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
