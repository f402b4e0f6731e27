"""Write the section of docs/performance.md about indexes, from scans*.json and engines*.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Measurement = dict[str, Any]

WHERES = ("everything", "10 %", "1 %", "0.1 %")


def section(work: Path) -> list[str]:
    """Return Markdown lines of the measurements in ``work``; "not measured" if one is missing."""
    lines = ["## Indexes", ""]
    scans = [_read(path) for path in sorted(work.glob("scans*.json"))]
    for found in scans:
        lines += _scans(found)
    runs = [(found, run) for found in map(_read, sorted(work.glob("engines*.json"))) for run in found["runs"]]
    if not runs and not scans:
        return [*lines, "Not measured.", ""]
    if not runs:
        return [*lines, "Engines are not measured.", ""]
    lines += [
        "p50 and p99 are milliseconds of single queries, one after the other; recall@10 is relative to "
        "scoring every item. Both are measured without and with filters. The last column has searches per "
        "second with 1, 4 and 16 clients. Memory is the process's own and, after the plus, that of mapped "
        "files, which the system may take back. If there are fewer pictures than items, further items are "
        "combined from several pictures and noise (`benchmarks/index/material.py`). *ours, quick* is the "
        "quicker search that an audit chose ([large indexes](indexes.md#large-indexes)).",
        "",
    ]
    for found, run in sorted(runs, key=lambda pair: pair[1]["items"]):
        lines += _run(run, found["machine"])
    if (postgres := work / "postgres.md").exists():
        title = "### PostgreSQL compared with `exact` (`benchmarks/index/postgres.py`)"
        lines += [title, "", postgres.read_text(encoding="utf-8")]
    return lines


def _scans(found: Measurement) -> list[str]:
    """Yield the lines about one search, in turns with other scans of the same vectors."""
    lines = [
        f"A search of the engine `exact` (*ours*), in turns with other searches of the same vectors in one "
        f"process ({found['queries']} queries; `benchmarks/index/scans.py`): milliseconds of one query, "
        "and of 64 at once.",
        "",
        "| items | way | median | least | 64 at once, median | least |",
        "|---|---|---|---|---|---|",
    ]
    for count, run in found["runs"].items():
        for name, row in run.items():
            keys = ("p50_ms", "least_ms", "64_at_once_ms", "64_at_once_least_ms")
            cells = [f"{int(count):,}", name, *(f"{row[key]:.1f}" for key in keys)]
            lines.append("| " + " | ".join(cells) + " |")
    machine = found["machine"]
    return [
        *lines,
        "",
        f"Machine: {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}, load "
        f"{machine['load']} at the end.",
        "",
    ]


def _read(path: Path) -> Measurement:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _run(run: Measurement, machine: Measurement) -> list[str]:
    lines = [
        f"### {run['items']:,} items of {run['numbers']} numbers",
        "",
        f"{run['real_items']:,} items are unchanged pictures.",
        "",
        "| engine | build s | disk MB | memory MB | all: p50 / p99 | recall | "
        + " | ".join(f"{where}: p50 | recall" for where in WHERES[1:])
        + " | per second, 1 / 4 / 16 |",
        "|---" * 13 + "|",
    ]
    lines += [_row(name, row) for name, row in run["engines"].items()]
    lines += ["", *_waits(run.get("waits"))]
    if "note" in run:
        lines += [run["note"], ""]
    lines += [
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, torch "
        f"{machine['torch']}, load {machine['load']} at the end.",
        "",
    ]
    return lines


def _waits(waits: Measurement | None) -> list[str]:
    if not waits or "error" in waits:
        return ["While another process writes: not measured.", ""]
    quiet, busy = waits["quiet"], waits["while_written"]
    return [
        f"While another process added and deleted ({waits['generations']} generations) and at last deleted "
        f"half of all items, {busy['searches']} searches took {busy['p50_ms']:.0f} ms at the median "
        f"and {busy['longest_ms']:.0f} ms at most; before that {quiet['p50_ms']:.0f} and "
        f"{quiet['longest_ms']:.0f}.",
        "",
    ]


def _row(name: str, row: Measurement) -> str:
    if "error" in row:
        return f"| {name} | failed: {row['error'].replace('|', '/')[:120]} |" + " |" * 11
    every = row["everything"]
    cells = [
        name,
        f"{row['build_s']:.1f}",
        f"{row['disk_mb']:,.0f}",
        f"{row['memory_mb']['own']:,.0f} + {row['memory_mb']['mapped']:,.0f}",
        f"{every['p50_ms']:.1f} / {every['p99_ms']:.1f}",
        f"{every['recall']:.3f}",
    ]
    for where in WHERES[1:]:
        cells += [f"{row[where]['p50_ms']:.1f}", f"{row[where]['recall']:.3f}"]
    cells.append(" / ".join(f"{value:.0f}" for value in row["per_second"].values()))
    return "| " + " | ".join(cells) + " |"
