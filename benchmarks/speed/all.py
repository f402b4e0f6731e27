"""Run every measurement of this folder in turn, within a time limit.

    python -m benchmarks.speed.all --out WORK --minutes 30

The pictures of ``extraction`` are drawn here unless ``--data`` names a catalogue. Measurements that
are not finished in time are stopped and named, and their earlier figures in WORK are kept.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dqecir.synthetic.garments import GARMENTS

DRAWN = 1500


def commands(data: Path, rounds: int) -> dict[str, list[str]]:
    """Return name of the JSON -> module and arguments, the most important first."""
    taken, pictures = ["--rounds", str(rounds)], ["--data", str(data)]
    return {
        "step-vit_g": ["step", "--tower", "vit_g", "--batch", "4", *taken],
        "step-vit_l": ["step", "--tower", "vit_l", "--batch", "4", *taken],
        "step-vit_l-16": ["step", "--tower", "vit_l", "--batch", "16", *taken],
        "evaluation": ["evaluation", *taken],
        "mining": ["mining", *taken],
        "growth": ["growth", *taken],
        "extraction": ["extraction", *pictures, "--images", str(DRAWN), "--rounds", str(max(3, rounds))],
        "extraction-vit_l": ["extraction", *pictures, "--tower", "vit_l", "--images", "48", *taken],
        "memory": ["memory", "--measure", "4", "8", "--compile", "4", "--compile-seconds", "240", *taken],
    }


def run(command: list[str], seconds: float) -> str:
    """Run a command and its children within a time limit; return how it ended."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return "done" if process.wait(timeout=max(seconds, 1)) == 0 else "FAILED"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "out of time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30, help="for everything; fewer mean fewer rounds")
    parser.add_argument("--data", type=Path, help="a catalogue of photos")
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    data = given.data or given.out / "garments"
    if not data.exists():
        GARMENTS.write(data, items=DRAWN, seed=0, size=256, quiet=True)
    rounds = max(1, min(5, int(given.minutes // 10)))
    ended = {}
    for name, (module, *arguments) in commands(data, rounds).items():
        started = time.monotonic()
        out = ["--out", str(given.out / f"{name}.json")]
        ended[name] = run(
            [sys.executable, "-m", f"benchmarks.speed.{module}", *arguments, *out], until - started
        )
        print(f"{name}: {ended[name]}, {time.monotonic() - started:.0f} s", flush=True)
    if set(ended.values()) != {"done"}:
        sys.exit("not everything was measured: " + ", ".join(n for n, how in ended.items() if how != "done"))


if __name__ == "__main__":
    main()
