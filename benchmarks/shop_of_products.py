"""Follow docs/quickstart-shop.md with real products: time and memory of each step, and ten searches.

    python benchmarks/shop_of_products.py SCRATCH --products 600

``$DQECIR_SHARED/data/products`` holds ``attributes.csv`` and ``images.zip``; products are drawn by seed.
Results are written to ``SCRATCH/measured.json``. A search requests, from a random product, a kind of article
and a colour that at least five products have; counted is how many of the first five results show both.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

STEPS = (
    "checking the catalogue",
    "encoding the pictures",
    "learning the columns",
    "training",
    "measuring",
    "building the index",
    "writing the report",
)
SEARCHES, FIRST = 10, 5


def draw(shop: Path, products: int, seed: int) -> list[dict[str, str]]:
    """Write a shop of some of the products, and return the rows of its table."""
    source = Path(os.environ["DQECIR_SHARED"]) / "data" / "products"
    with (source / "attributes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = random.Random(seed).sample(rows, min(products, len(rows)))
    if not shop.exists():
        with zipfile.ZipFile(source / "images.zip") as pictures:
            names = {Path(name).name: name for name in pictures.namelist()}
            for row in rows:
                path = shop / row["image"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(pictures.read(names[path.name]))
        with (shop / "attributes.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return rows


def megabytes(pid: int) -> float:
    """Return the memory of a process; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0
    )


def measured(name: str, *words: object) -> dict[str, dict[str, float]]:
    """Run a command of dqecir; return seconds and peak memory of each step that it prints on standard
    error.
    """
    command = [sys.executable, "-c", "from dqecir.cli import main; main()", *map(str, words)]
    step, begun = name, time.monotonic()
    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        done = threading.Event()

        def sample() -> None:
            while not done.wait(0.2):
                peaks[step] = max(peaks.get(step, 0.0), megabytes(process.pid))

        sampler = threading.Thread(target=sample)
        sampler.start()
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if line.strip() in STEPS:
                seconds[step], begun, step = time.monotonic() - begun, time.monotonic(), line.strip()
        seconds[step] = time.monotonic() - begun
        done.set()
        sampler.join()
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}")
    return {
        key: {"seconds": round(value, 1), "megabytes": round(peaks.get(key, 0.0))}
        for key, value in seconds.items()
    }


def questions(rows: list[dict[str, str]], seed: int) -> list[tuple[dict[str, str], str, str]]:
    """Return references, each with a kind of article and a colour that it lacks and that five products
    have.
    """
    counts = Counter((row["article"], row["color"]) for row in rows if row["article"] and row["color"])
    offered = sorted(pair for pair, count in counts.items() if count >= FIRST)
    rng = random.Random(seed)
    drawn = rng.sample(offered, min(SEARCHES, len(offered)))
    return [
        (rng.choice([row for row in rows if (row["article"], row["color"]) != pair]), *pair) for pair in drawn
    ]


def search(
    shop: Path, rows: list[dict[str, str]], index: Path, model: Path | None, seed: int
) -> list[dict[str, Any]]:
    """Ask the ten questions; return how many of the first five results show kind and colour."""
    from dqecir import ComposedRetriever

    retriever = ComposedRetriever.of_index(index, model)
    by_image = {row["image"]: row for row in rows}
    asked = []
    for reference, article, color in questions(rows, seed):
        text = f"{article} in {color}".lower()
        found = retriever.search(shop / reference["image"], text, k=FIRST).results
        shown = [by_image[result.id] for result in found]
        both = sum((row["article"], row["color"]) == (article, color) for row in shown)
        asked.append({"from": reference["title"], "text": text, "both": both})
    return asked


def main() -> None:
    """Draw, check, index, fit and search."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--products", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-fit", action="store_true", help="Search with the shipped model alone.")
    options = parser.parse_args()
    scratch = options.scratch
    shop, fit = scratch / "shop", scratch / "fit"
    rows = draw(shop, options.products, options.seed)
    steps = measured("catalogue check", "catalogue", "check", shop)
    steps |= measured("index build", "index", "build", "--images", shop, "--out", scratch / "index")
    searches = {"shipped": search(shop, rows, scratch / "index", None, options.seed)}
    if not options.no_fit:
        steps |= measured("starting the fit", "catalogue", "fit", shop, "--out", fit)
        searches["fitted"] = search(shop, rows, fit / "index", fit / "model", options.seed)
    shares = {
        name: sum(one["both"] for one in asked) / (FIRST * len(asked)) for name, asked in searches.items()
    }
    record = {"products": len(rows), "steps": steps, "share of the first five": shares, "searches": searches}
    (scratch / "measured.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
