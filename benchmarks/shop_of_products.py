"""Follow docs/quickstart-shop.md with real products: time and memory of each step, and ten searches.

    python -m benchmarks.shop_of_products SCRATCH --products 600 --form excel --no-fit
    python -m benchmarks.shop_of_products SCRATCH OTHER … --write

``$DQECIR_SHARED/data/products`` holds ``attributes.csv`` and ``images.zip``; products are drawn by seed. The
form of the shop's table is that of ``attributes.csv``, an Excel workbook, an export as Shopify writes it, or
``views``: a table of products with several pictures, which are pictures of one title and colour.
Results are written to ``SCRATCH/measured.json``, and by ``--write`` those of several folders into the page. A
search requests, from a random product, a kind of article and a colour that at least five products have;
counted is how many of the first five results show both. ``--kills`` fits once more, kills the process in
every step, resumes it, and compares the reports.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import write_part
from openpyxl import Workbook

from dqecir.io.markdown import table

PAGE = Path(__file__).parents[1] / "docs" / "quickstart-shop.md"
STEPS = (
    "checking the catalogue",
    "encoding the pictures",
    "learning the columns",
    "training",
    "measuring",
    "building the index",
    "writing the report",
)
GAIN = r"(mAP@10 [^)]*\))"
SEARCHES, FIRST = 10, 5
KILLED_AFTER = 2.0
"""Seconds from the beginning of a step to its kill."""
VIEWS = 3

FORMS = {
    "table": "its own table",
    "excel": "an Excel workbook",
    "shopify": "an export as Shopify writes it",
    "views": "several pictures a product",
}
Rows = list[dict[str, str]]


def draw(shop: Path, products: int, seed: int, form: str) -> list[Rows]:
    """Write a shop of some of the products, and return the rows of each product's pictures."""
    source = Path(os.environ["DQECIR_SHARED"]) / "data" / "products"
    with (source / "attributes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups = [[row] for row in rows]
    if form == "views":
        alike: dict[tuple[str, str], Rows] = {}
        for row in rows:
            alike.setdefault((row["title"], row["color"]), []).append(row)
        groups = [group[:VIEWS] for group in alike.values() if len(group) > 1]
    drawn = random.Random(seed).sample(groups, min(products, len(groups)))
    if not shop.exists():
        with zipfile.ZipFile(source / "images.zip") as pictures:
            names = {Path(name).name: name for name in pictures.namelist()}
            for row in (row for group in drawn for row in group):
                path = shop / row["image"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(pictures.read(names[path.name]))
        write_table(shop, drawn, form)
    return drawn


def write_table(shop: Path, products: Sequence[Rows], form: str) -> None:
    """Write the table of products, each of one or more rows, in a form."""
    rows = [product[0] for product in products]
    if form == "shopify":
        rows = [as_shopify(row) for row in rows]
    elif form == "views":
        rows = [
            {**product[0], "further images": ", ".join(row["image"] for row in product[1:])}
            for product in products
        ]
    if form == "excel":
        book = Workbook(write_only=True)
        sheet = book.create_sheet("products")
        for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
            sheet.append(cells)
        book.save(shop / "products.xlsx")
        return
    name = "products_export.csv" if form == "shopify" else "attributes.csv"
    with (shop / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def as_shopify(row: dict[str, str]) -> dict[str, str]:
    """Return a product as a row of an export, with the address of its picture."""
    return {
        "Handle": f"{row['title'].casefold().replace(' ', '-')}-{row['sku']}",
        "Title": row["title"],
        "Vendor": row["brand"],
        "Type": row["article"],
        "Published": "true",
        "Option1 Name": "Color",
        "Option1 Value": row["color"],
        "Variant SKU": row["sku"],
        "Variant Price": row["price"],
        "Image Src": f"https://cdn.example/files/{Path(row['image']).name}?v=1",
        "Image Position": "1",
        "Status": "active",
        "Usage (product.metafields.custom.usage)": row["usage"],
    }


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
    step, begun = name, time.monotonic()
    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}
    with subprocess.Popen(
        _command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
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


def report_after_kills(shop: Path, fit: Path) -> tuple[int, str]:
    """Fit, with a kill in every step; return the number of kills and the report."""
    killed: set[str] = set()
    while True:
        with subprocess.Popen(
            _command("catalogue", "fit", shop, "--out", fit),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                print(line, end="", file=sys.stderr, flush=True)
                step = line.strip()
                if step in STEPS and step not in killed:
                    killed.add(step)
                    threading.Timer(KILLED_AFTER, process.kill).start()
        if process.returncode == 0:
            return len(killed), told(fit)
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"the fit ended with {process.returncode}")


def told(fit: Path) -> str:
    """Return the report of a fit without its times and the folder's name."""
    lines = (fit / "report.md").read_text(encoding="utf-8").replace(str(fit), "FIT").splitlines()
    return "\n".join(line for line in lines if not line.startswith("- time: "))


def _command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from dqecir.cli import main; main()", *map(str, words)]


def questions(rows: Rows, seed: int) -> list[tuple[dict[str, str], str, str]]:
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
    shop: Path, products: Sequence[Rows], index: Path, model: Path | None, seed: int
) -> list[dict[str, Any]]:
    """Ask the ten questions; return how many of the first five results show kind and colour."""
    from dqecir import ComposedRetriever

    retriever = ComposedRetriever.of_index(index, model)
    by_picture = {Path(row["image"]).name: row for product in products for row in product}
    asked = []
    for reference, article, color in questions([product[0] for product in products], seed):
        text = f"{article} in {color}".lower()
        found = retriever.search(shop / reference["image"], text, k=FIRST).results
        shown = [by_picture[Path(result.payload["path"]).name] for result in found]
        both = sum((row["article"], row["color"]) == (article, color) for row in shown)
        asked.append({"from": reference["title"], "text": text, "both": both})
    return asked


def page(records: Sequence[dict[str, Any]]) -> str:
    """Return the tables of the measured shops."""
    steps = list(dict.fromkeys(step for record in records for step in record["steps"]))
    heads = [f"{record['products']:,} products, {FORMS[record['form']]}" for record in records]
    cells = [[step, *(_cell(record["steps"].get(step)) for record in records)] for step in (*steps,)]
    whole = [f"{sum(one['seconds'] for one in record['steps'].values()) / 60:.1f} min" for record in records]
    shares = []
    for name in ("shipped", "fitted"):
        found = [record["share of the first five"].get(name) for record in records]
        shares.append(
            [f"ten searches, {name} model", *("" if one is None else f"{100 * one:.0f} %" for one in found)]
        )
    gains = ["gain of the fit", *(record.get("gain of the fit") or "" for record in records)]
    return "\n".join([*table(["step", *heads], [*cells, ["in all", *whole], *shares, gains]), ""])


def _cell(step: dict[str, float] | None) -> str:
    return "" if step is None else f"{step['seconds']:,.0f} s, {step['megabytes'] / 1000:.1f} GB"


def main() -> None:
    """Draw, check, index, fit and search; or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scratch", type=Path, nargs="+")
    parser.add_argument("--products", type=int, default=600)
    parser.add_argument("--form", choices=FORMS, default="table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-fit", action="store_true", help="Search with the shipped model alone.")
    parser.add_argument("--kills", action="store_true", help="Fit once more, with a kill in every step.")
    parser.add_argument("--write", action="store_true", help="Write what was measured into the page.")
    options = parser.parse_args()
    if options.write:
        records = [
            json.loads((folder / "measured.json").read_text(encoding="utf-8")) for folder in options.scratch
        ]
        write_part(PAGE, "times", page(records).splitlines())
        return
    [scratch] = options.scratch
    shop, fit = scratch / "shop", scratch / "fit"
    products = draw(shop, options.products, options.seed, options.form)
    steps = measured("catalogue check", "catalogue", "check", shop)
    steps |= measured("index build", "index", "build", "--images", shop, "--out", scratch / "index")
    searches = {"shipped": search(shop, products, scratch / "index", None, options.seed)}
    gain = None
    if not options.no_fit:
        steps |= measured("starting the fit", "catalogue", "fit", shop, "--out", fit)
        searches["fitted"] = search(shop, products, fit / "index", fit / "model", options.seed)
        gain = re.search(GAIN, (fit / "report.md").read_text(encoding="utf-8"))
    if options.kills:
        kills, report = report_after_kills(shop, scratch / "killed")
        alike = report == told(fit)
        print(f"{kills} kills, the reports are {'alike' if alike else 'not alike'}")
    shares = {
        name: sum(one["both"] for one in asked) / (FIRST * len(asked)) for name, asked in searches.items()
    }
    record = {
        "products": len(products),
        "form": options.form,
        "steps": steps,
        "share of the first five": shares,
        "searches": searches,
        "gain of the fit": gain and gain[1],
    }
    (scratch / "measured.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
