"""The part of docs/performance.md about indexes, from tokens.json and engines*.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Found = dict[str, Any]

SETS = {
    "shipped": "pictures encoded by the shipped model",
    "strong": "drawn tokens, strongly alike within an item",
    "weak": "drawn tokens, weakly alike within an item",
}
CANDIDATES = "ours, sketch of"
AIM_MS, AIM_RECALL, AIM_MB = 25, 0.99, 8000


def section(work: Path) -> list[str]:
    """Markdown lines of what is in ``work``; "not measured" for what is missing."""
    lines = ["## Indexes", ""]
    tokens = _read(work / "tokens.json")
    lines += _tokens(tokens) if tokens else ["How alike tokens are: not measured.", ""]
    runs = [(found, run) for found in map(_read, sorted(work.glob("engines*.json"))) for run in found["runs"]]
    done = [(found, run) for found, run in runs if run]
    if not done:
        return [*lines, "Engines: not measured.", ""]
    lines += [
        "17 tokens of width 128 an item. p50 and p99 in milliseconds of one query after the other, recall@10 "
        "against scoring every item; beside it answers a second with 1, 4 and 16 clients. Memory is a "
        "process's own and, after the plus, pages of files that it has mapped and that the system may take "
        "back. A sketch is built once, for any number of candidates. Beyond the pictures that there are, "
        "items are put together from several and noise (`benchmarks/index/material.py`). FAISS and "
        "LanceDB find candidates by inner products, and our scorer orders them, where the rule is no "
        "maximum of products.",
        "",
    ]
    for found, run in sorted(done, key=lambda pair: (pair[1]["items"], list(SETS).index(pair[1]["set"]))):
        lines += _run(run, found["machine"])
    return lines


def _read(path: Path) -> Found:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _tokens(found: Found) -> list[str]:
    lines = [
        "How alike the base tokens of a picture are under the shipped model, and what recall@10 is left "
        "where they are put together to fewer (the distributions stay):",
        "",
        "| pictures | mean cosine | directions with 99 % | of 8: 4 | 2 | 1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["sets"].items():
        recalls = row["recall_with_fewer_base_tokens"]
        lines.append(
            f"| {name}, {row['images']:,} | {row['mean_cosine_of_base_tokens']:.2f} "
            f"| {row['dimensions_with_99_percent']} | "
            + " | ".join(f"{recalls[count]:.3f}" for count in ("4", "2", "1"))
            + " |"
        )
    return [*lines, ""]


def _run(run: Found, machine: Found) -> list[str]:
    made = f"; {run['real_items']:,} are pictures as they are" if run["set"] == "shipped" else ""
    lines = [
        f"### {run['items']:,} items: {SETS[run['set']]}{made}",
        "",
        "| engine | build s | disk MB | memory MB | all: p50 / p99 | recall | 10 %: p50 | recall | 1 %: p50 "
        "| recall | a second, 1 / 4 / 16 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, row) for name, row in run["engines"].items()]
    lines.append("")
    lines += _aim(run)
    waits = run.get("waits")
    count = waits.get("candidates") if waits else None
    lines += _waits(waits, f"{count:,} candidates" if count else "all items scored")
    lines += [
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, torch "
        f"{machine['torch']}, load {machine['load']} at the end.",
        "",
    ]
    return lines


def _waits(waits: Found | None, way: str) -> list[str]:
    if not waits or "error" in waits:
        return ["While another process writes: not measured.", ""]
    quiet, busy = waits["quiet"], waits["while_written"]
    return [
        f"While another process added and deleted ({waits['generations']} generations) and at last deleted "
        f"half of all items, {busy['searches']} searches ({way}) took {busy['p50_ms']:.0f} ms at the median "
        f"and {busy['longest_ms']:.0f} ms at most; before that {quiet['p50_ms']:.0f} and "
        f"{quiet['longest_ms']:.0f}.",
        "",
    ]


def _row(name: str, row: Found) -> str:
    if "error" in row:
        return f"| {name} | failed: {row['error'].replace('|', '/')[:120]} |" + " |" * 9
    every, tenth, hundredth = row["everything"], row["10 %"], row["1 %"]
    clients = " / ".join(f"{value:.0f}" for value in row["per_second"].values())
    cells = [
        name,
        f"{row['build_s']:.1f}",
        f"{row['disk_mb']:,.0f}",
        f"{row['memory_mb']['own']:,.0f} + {row['memory_mb']['mapped']:,.0f}",
        f"{every['p50_ms']:.1f} / {every['p99_ms']:.1f}",
        f"{every['recall']:.3f}",
        f"{tenth['p50_ms']:.1f}",
        f"{tenth['recall']:.3f}",
        f"{hundredth['p50_ms']:.1f}",
        f"{hundredth['recall']:.3f}",
        clients,
    ]
    return "| " + " | ".join(cells) + " |"


def _aim(run: Found) -> list[str]:
    """Whether a million pictures are found as quickly as was aimed at, said of the best that was measured."""
    if run["set"] != "shipped" or run["items"] < 1_000_000:
        return []
    sketches = {
        name: row
        for name, row in run["engines"].items()
        if name.startswith(CANDIDATES) and "error" not in row and row["everything"]["recall"] >= AIM_RECALL
    }
    if not sketches:
        return [f"Aim: recall {AIM_RECALL} of a million. No sketch reached it.", ""]
    name, row = min(sketches.items(), key=lambda pair: pair[1]["everything"]["p50_ms"])
    took, recall = row["everything"]["p50_ms"], row["everything"]["recall"]
    memory = row["memory_mb"]["own"] + row["memory_mb"]["mapped"]
    reached = "reached" if took < AIM_MS and memory < AIM_MB else "missed"
    return [
        f"Aim of {AIM_MS} ms at recall {AIM_RECALL} in {AIM_MB / 1000:.0f} GB: **{reached}** ({name}: "
        f"{took:.1f} ms, recall {recall:.3f}, {memory / 1000:.1f} GB with what is mapped).",
        "",
    ]
