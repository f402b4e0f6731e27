"""Compare indexes: build, disk, memory, times, throughput and recall, of dqecir's engines and others.

    python -m benchmarks.index.engines --pictures PHOTOS GARMENTS --work WORK --out WORK/engines.json
    python -m benchmarks.index.engines --sizes 1000000 --work WORK --out WORK/engines-1m.json

``material.py`` describes the items, ``rivals.py`` the engines. Every engine is built and queried in separate
processes; recall@10 is relative to dqecir's exact engine, which is finally timed while it is written to
(``waits.py``). Results are written after every engine, with the error of an engine that fails; with
``--update``, results of other engines in the file are kept. The files of an engine are removed after its
queries, and all files of a size at its end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.index.material import Material, encode, queries
from benchmarks.index.rivals import BEST, RIVALS, WHERES, Rival
from benchmarks.index.waits import waits
from benchmarks.speed.timing import machine

from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.io.files import write_json
from dqecir.io.starting import let_threads_sleep

CLIENTS = (1, 4, 16)
FIRST = "ours, exact"
"""It is built first: others read its tokens."""
Measurement = dict[str, Any]


def built(rival: Rival) -> Measurement:
    """Return the seconds and the peak memory of a build, and its size on disk."""
    started = time.perf_counter()
    rival.build()
    return {
        "build_s": time.perf_counter() - started,
        "build_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mb": sum(path.stat().st_size for path in rival.folder().rglob("*") if path.is_file()) / 1e6,
    }


def asked(
    rival: Rival, asked_for: torch.Tensor, rights: dict[str, list[list[int]]], seconds: float
) -> Measurement:
    """Return times and recall of single queries, throughput of clients, and memory at the end."""
    started = time.perf_counter()
    rival.open()
    found: Measurement = {"open_s": time.perf_counter() - started}
    for where in WHERES:
        rival.search(asked_for[-1], where)
        taken, shares = [], []
        for query, right in zip(asked_for, rights[where], strict=True):
            started = time.perf_counter()
            rows = rival.search(query, where)
            taken.append(1000 * (time.perf_counter() - started))
            shares.append(len(set(rows) & set(right)) / len(right))
            if sum(taken) > 1000 * seconds and len(taken) >= 3:
                break
        found[where] = {
            "p50_ms": statistics.median(taken),
            "p99_ms": float(np.quantile(taken, 0.99)),
            "recall": statistics.mean(shares),
            "queries": len(taken),
        }
    found["per_second"] = {
        str(clients): throughput(rival, asked_for, clients, seconds) for clients in CLIENTS
    }
    found["memory_mb"] = memory()
    return found


def throughput(rival: Rival, asked_for: torch.Tensor, clients: int, seconds: float) -> float:
    """Return results per second for clients that send the next query as soon as they have a result."""
    end = time.perf_counter() + seconds

    def ask(client: int) -> int:
        done = 0
        while time.perf_counter() < end:
            rival.search(asked_for[(client * 17 + done) % len(asked_for)], "everything")
            done += 1
        return done

    started = time.perf_counter()
    done: list[int] = []
    threads = [threading.Thread(target=lambda c=c: done.append(ask(c))) for c in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


def memory() -> Measurement:
    """Return megabytes of this process: its own, and pages of files that it has mapped."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    kilobytes = {line[0]: int(line[1]) for line in lines if line[0].startswith("Rss")}
    return {"own": kilobytes["RssAnon:"] / 1024, "mapped": kilobytes["RssFile:"] / 1024}


def right_answers(folder: Path, asked_for: torch.Tensor) -> dict[str, list[list[int]]]:
    """Return the results of the exact engine, for each filter."""
    index = ExactIndex.open(folder / "exact").with_settings(None)
    assert index is not None
    return {
        where: [
            [int(hit.id) for hit in hits]
            for part in asked_for.split(16)
            for hits in index.search(part, BEST, where=parse_filter(text) if text else None)
        ]
        for where, text in WHERES.items()
    }


def _in_process(link: Connection, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    try:
        link.send(work(*given))
    except Exception as error:
        traceback.print_exc()
        link.send({"error": f"{type(error).__name__}: {error}"})


def in_process(work: Callable[..., Any], *given: Any) -> Any:
    """Return the result of a function in a separate process; {"error": …} if it fails."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_process, args=(theirs, work, given))
    process.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        result = {"error": "the process ended"}
    process.join()
    return result


def _built(name: str, folder: Path, items: Material) -> Measurement:
    return built(RIVALS[name](folder, items))


def _asked(name: str, folder: Path, items: Material, *given: Any) -> Measurement:
    return asked(RIVALS[name](folder, items), *given)


def compare(
    folder: Path,
    items: Material,
    asked_for: torch.Tensor,
    names: list[str],
    seconds: float,
    known: Measurement,
) -> Any:
    """Build and query every engine; yield the results after each one, with those ``known`` before."""
    found: Measurement = {
        "items": items.count,
        "numbers": items.header.size,
        "real_items": items.real,
        "engines": {},
        **known,
    }
    folder.mkdir(parents=True, exist_ok=True)
    first = in_process(_built, FIRST, folder, items)
    if "error" in first:
        raise SystemExit(first["error"])
    rights = in_process(right_answers, folder, asked_for)
    for name in names:
        if items.count > RIVALS[name].largest:
            continue
        print(f"{items.count} items: {name}", flush=True)
        done = first if name == FIRST else in_process(_built, name, folder, items)
        if "error" not in done:
            done = done | in_process(_asked, name, folder, items, asked_for, rights, seconds)
        found["engines"][name] = done
        place = RIVALS[name](folder, items).folder()
        if place.name != "exact":
            shutil.rmtree(place, ignore_errors=True)
        yield found
    found["waits"] = in_process(waits, folder / "exact", asked_for, max(5.0, seconds))
    shutil.rmtree(folder)
    yield found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="folders to encode at first")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--engines", choices=list(RIVALS), nargs="+", default=list(RIVALS))
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement of one engine")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--update", action="store_true", help="keep what OUT holds of other engines")
    given = parser.parse_args()
    let_threads_sleep()
    source = given.work / "encoded"
    encode(given.pictures, source)
    kept = json.loads(given.out.read_text(encoding="utf-8"))["runs"] if given.update else []
    runs: dict[int, Measurement] = {run["items"]: run for run in kept}
    asked_for = queries(given.queries, source)
    for count in given.sizes:
        folder = given.work / f"engines-{count}"
        started = time.perf_counter()
        known = runs.get(count, {})
        for found in compare(folder, Material(count, source), asked_for, given.engines, given.seconds, known):
            runs[count] = {**found, "seconds": time.perf_counter() - started}
            told = {"machine": machine() | {"processor": processor()}, "runs": list(runs.values())}
            write_json(given.out, told)


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
