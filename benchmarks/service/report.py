"""Write the section of docs/performance.md about the service, from results of ``benchmarks.service.load``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.service.load import NAME

COMMAND = "python -m benchmarks.service.load --index INDEX --out WORK --soak 600"


def section(work: Path) -> list[str]:
    """Return Markdown lines, also if nothing was measured."""
    lines = ["## The service", ""]
    path = work / NAME
    if not path.is_file():
        return [*lines, f"Not measured: `{COMMAND}`.", ""]
    found = json.loads(path.read_text(encoding="utf-8"))
    machine = found["machine"]
    lines += [
        f"`{COMMAND}`: the shipped model over {found['items']:,} items, {machine['cores']} cores, which the "
        "clients share with the service. *Model* is the search core without HTTP in the same run, in batches "
        "as large as the service's were. Searches start from uploaded pictures or from items of the index.",
        "",
        "| searches from | clients | requests/s | p50, ms | p99, ms | requests in a batch | "
        "model, requests/s | ratio to the model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        lines.append(
            f"| {run['kind']} | {run['clients']} | {run['per_second']:.0f} | {run['p50_ms']:.0f} | "
            f"{run['p99_ms']:.0f} | {run['batch']:.1f} | {run['model_per_second']:.0f} | {run['ratio']:.2f} |"
        )
    wrong, asked = sum(run["wrong"] for run in found["runs"]), sum(run["requests"] for run in found["runs"])
    lines += [
        "",
        f"{wrong} of {asked:,} answers were wrong or lost. From the command to the first answer of `/readyz` "
        f"it takes {found['start_seconds']:.1f} seconds (median of three).",
        "",
        *_soak(found.get("soak")),
        *(["", found["note"]] if "note" in found else []),
        "",
    ]
    return lines


def _soak(soak: dict[str, Any] | None) -> list[str]:
    if soak is None:
        return ["Memory under long load: not measured (`--soak 600`)."]
    before, after = (soak[name] / 2**20 for name in ("resident_start", "resident_end"))
    return [
        f"{soak['seconds'] / 60:.1f} minutes of searches by eight clients while two others add and delete: "
        f"{soak['searches']:,} searches, {soak['changes']:,} changes, {soak['wrong']} wrong or lost; "
        f"resident memory {before:.0f} MiB after the warm-up and {after:.0f} MiB at the end."
    ]
