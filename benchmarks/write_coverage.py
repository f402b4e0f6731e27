"""Write docs/coverage.md from the JSON of coverage.py: ``python -m benchmarks.write_coverage
build/coverage.json``.

``make coverage`` runs the suite and calls this script.
"""

import json
import platform
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from dqecir.io.files import write_text

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"
LOWEST = 10
"""Number of modules that the page lists."""
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def written(found: Mapping[str, Any]) -> str:
    """Return the page about the report ``found``: the whole package, each room, and the least covered
    modules."""
    files = {
        str(PurePosixPath(path.replace("\\", "/")).relative_to("src/dqecir")): file["summary"]
        for path, file in found["files"].items()
    }
    rooms: dict[str, Counter[str]] = {}
    for path, summary in files.items():
        room = rooms.setdefault(path.split("/")[0] + "/" if "/" in path else "top level", Counter())
        room.update({name: summary[name] for name in COUNTS})
    lowest = sorted((path for path in files if share(files[path]) < 100), key=lambda path: share(files[path]))
    return "\n".join(
        [
            "# Test coverage",
            "",
            f"The test suite covers **{share(found['totals']):.1f} %** of the package's lines and "
            "branches. Measure it again with",
            "",
            "<!-- not run: runs the whole test suite -->",
            "```",
            "make coverage    # or, as a step of a CI server: .ci/run coverage",
            "```",
            "",
            "The measurement is a CI step of its own, because it makes the suite slower and `.ci/run` "
            "must end within ten minutes on two cores. `benchmarks/write_coverage.py` writes this page "
            f"from its report (coverage.py {found['meta']['version']}, Python {platform.python_version()}, "
            f"{found['meta']['timestamp'][:10]}). Code that only runs on other systems, or with a GPU, "
            "counts as not covered.",
            "",
            "| room | statements | branches | lines and branches covered |",
            "|---|---|---|---|",
            *(_row(name, counts) for name, counts in sorted(rooms.items())),
            _row("**all**", found["totals"]),
            "",
            f"The {LOWEST} least covered modules:"
            if len(lowest) > LOWEST
            else "Modules that are not fully covered:",
            "",
            "| module | lines and branches covered |",
            "|---|---|",
            *(f"| `{path}` | {share(files[path]):.1f} % |" for path in lowest[:LOWEST]),
            "",
        ]
    )


def share(counts: Mapping[str, int]) -> float:
    """Return the percentage of covered lines and branches, as coverage.py computes it; 100 without any."""
    whole = counts["num_statements"] + counts["num_branches"]
    return 100 * (counts["covered_lines"] + counts["covered_branches"]) / whole if whole else 100.0


def _row(name: str, counts: Mapping[str, int]) -> str:
    return f"| {name} | {counts['num_statements']:,} | {counts['num_branches']:,} | {share(counts):.1f} % |"


if __name__ == "__main__":
    write_text(PAGE, written(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
