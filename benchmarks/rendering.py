"""How fast garments are drawn, on one core.

    python benchmarks/rendering.py --work WORK

Prints one table and writes WORK/rendering.json for ``benchmarks/write_results.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

from rich.table import Table

from dqecir.io.files import write_json
from dqecir.io.progress import console
from dqecir.synthetic.garments import GARMENTS

SIZES = (64, 96, 128)
ROUNDS = 5
IMAGES = 300


def images_a_second(size: int, start: int) -> float:
    items = GARMENTS.rows(IMAGES, seed=0, arrangement="independent")
    started = time.process_time()
    for number, attributes in enumerate(items, start):
        GARMENTS.image(attributes, 0, number, size)
    return IMAGES / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    sizes = {}
    table = Table("side", "images a second and core, median (least to most)")
    for size in SIZES:
        images_a_second(size, 0)
        speeds = [images_a_second(size, turn * IMAGES) for turn in range(ROUNDS)]
        sizes[size] = {"median": statistics.median(speeds), "least": min(speeds), "most": max(speeds)}
        table.add_row(str(size), f"{sizes[size]['median']:.0f} ({min(speeds):.0f} to {max(speeds):.0f})")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "rounds": ROUNDS, "sizes": sizes}
    write_json(options.work / "rendering.json", result)
    console.print(table)
    print(json.dumps({"benchmark": "rendering", **result}))


if __name__ == "__main__":
    main()
