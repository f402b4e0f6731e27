"""Compare the time of whole commands with another checkout of the package.

    python -m benchmarks.startup --other ../older --images PHOTOS

Both checkouts run every command once per round, in turns, on one index that the other one built. The table
has medians over the rounds, in seconds of the clock and CPU seconds, and the ratio of this checkout to the
other with the 95 % interval of its bootstrap over rounds. If the machine does other work, use CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parents[1]
START = "from dqecir.cli import main; main()"
MEASURES = ("seconds", "CPU seconds")


def commands(index: Path, image: Path, text: str) -> dict[str, list[str]]:
    """Return name -> arguments of the measured commands."""
    return {
        "--help": ["--help"],
        "--version": ["--version"],
        "index info": ["index", "info", "--index", str(index)],
        "search": ["search", "--index", str(index), "--image", str(image), "--text", text],
    }


def run(checkout: Path, arguments: list[str]) -> tuple[float, float]:
    """Run a command of a checkout; return its seconds by the clock and its CPU seconds.

    A command that the checkout does not have is refused after the same imports, so it counts too.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", START, *arguments], env=environment, capture_output=True)
    taken, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> str:
    """Return the ratio of two medians over the same rounds, with its 95 % interval."""
    rounds = np.random.default_rng(0).integers(0, len(ours), (10_000, len(ours)))
    ratios = np.median(ours[rounds], axis=1) / np.median(theirs[rounds], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return f"{np.median(ours) / np.median(theirs):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path, required=True, help="another checkout of the package")
    parser.add_argument("--images", type=Path, required=True, help="a folder of pictures to index")
    parser.add_argument("--text", default="is blue", help="the text of the search; default: is blue")
    parser.add_argument("--rounds", type=int, default=7, help="how often each command runs; default: 7")
    options = parser.parse_args()
    checkouts = (HERE, options.other.resolve())
    image = next(path for path in sorted(options.images.rglob("*")) if path.suffix in (".jpg", ".png"))
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "index"
        run(checkouts[1], ["index", "build", "--images", str(options.images), "--out", str(index)])
        table = Table("command", "measure", str(checkouts[0]), str(checkouts[1]), "ratio")
        for name, arguments in commands(index, image, options.text).items():
            # The first round reads files that later ones find in memory.
            rounds = [[run(checkout, arguments) for checkout in checkouts] for _ in range(options.rounds + 1)]
            taken = np.array(rounds[1:])  # [rounds, checkouts, measures]
            for place, measure in enumerate(MEASURES):
                ours, theirs = taken[:, :, place].T
                medians = [f"{np.median(one):.2f}" for one in (ours, theirs)]
                table.add_row(name, measure, *medians, ratio(ours, theirs))
    Console().print(table)


if __name__ == "__main__":
    main()
