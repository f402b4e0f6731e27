"""Measure the time that reading its text adds to a search: milliseconds per text of the reader, and of the
rules.

    python -m benchmarks.reading_time

Texts are the reader's own test texts. Rules and reader read every text in turns on one core. The command
prints medians of CPU milliseconds over texts and rounds, because other work disturbs them less than the
clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

from dqecir.language.parsing import Parser
from dqecir.language.reader import Reader
from dqecir.language.spoken import USUAL
from dqecir.language.vocabulary import shipped_vocabularies

TEXTS = Path(__file__).parent.parent / "tests" / "language" / "reader_texts.yaml"


def milliseconds(read: Callable[[str], object], text: str) -> float:
    """Return the CPU time of one reading."""
    before = time.process_time()
    read(text)
    return 1000 * (time.process_time() - before)


def main() -> None:
    """Read every text by turns and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    texts = [case["text"] for case in yaml.safe_load(TEXTS.read_text(encoding="utf-8"))]
    readers: dict[str, Callable[[str], object]] = {
        "rules": Parser(shipped_vocabularies(USUAL), USUAL).clauses,
        "reader": Reader().read,
    }
    taken = np.array(
        [
            [[milliseconds(read, text + " " * place) for read in readers.values()] for text in texts]
            for place in range(1 + given.rounds)
        ]
    )[1:]  # The first round fills caches; blanks keep the rules from knowing a text again.
    for number, name in enumerate(readers):
        own = taken[..., number]
        print(f"{name:8} median {np.median(own):.1f} ms, 95 % of texts below {np.quantile(own, 0.95):.1f} ms")
    print(f"reader minus rules, median {np.median(taken[..., 1] - taken[..., 0]):.1f} ms")


if __name__ == "__main__":
    main()
