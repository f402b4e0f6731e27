"""Measure the running page with Lighthouse, as on a phone: the median of several runs.

    python -m benchmarks.lighthouse                                  # a drawn shop, served for this
    python -m benchmarks.lighthouse --address http://127.0.0.1:8000  # a page that runs already

The exit status is 1 if accessibility is below 95 or performance below 90. Performance also depends on the
machine and its other work. Needs Node, npm and a Chromium (`make browser`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.page_pictures import CHROMIUM, serving, wait_for

LIGHTHOUSE = "lighthouse@12.2.3"
LEAST = {"accessibility": 95, "performance": 90}
METRICS = (
    "first-contentful-paint",
    "largest-contentful-paint",
    "total-blocking-time",
    "cumulative-layout-shift",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="The address of a page that runs. Default: a drawn shop is served.")
    parser.add_argument("--runs", type=int, default=5, help="Number of runs. Default: 5.")
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None or shutil.which("npx") is None:
        sys.exit("Lighthouse needs npx and a Chromium; `make browser` installs the latter")
    with page_at(options.address) as address:
        reports = [run(address, browser) for _ in range(options.runs)]
    scores = {name: [100 * report["categories"][name]["score"] for report in reports] for name in LEAST}
    for name, found in scores.items():
        print(f"{name}: {statistics.median(found):.0f} (runs: {', '.join(f'{one:.0f}' for one in found)})")
    for name in METRICS:
        middle = statistics.median(report["audits"][name]["numericValue"] for report in reports)
        print(f"{name}: {middle:.4g}")
    sys.exit(any(statistics.median(found) < LEAST[name] for name, found in scores.items()))


@contextmanager
def page_at(address: str | None) -> Iterator[str]:
    """Yield the address of a running page, or of one that is served in the meantime."""
    if address is not None:
        yield address
        return
    with tempfile.TemporaryDirectory() as work:
        command = serving(Path(work), None)
        with subprocess.Popen(command) as service:
            try:
                served = f"http://127.0.0.1:{command[-1]}"
                wait_for(f"{served}/readyz")
                yield served
            finally:
                service.terminate()


def run(address: str, browser: str) -> dict[str, Any]:
    """Return the report of one run."""
    command = [
        *("npx", "--yes", LIGHTHOUSE, address, "--quiet", "--output=json"),
        "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
        f"--only-categories={','.join(LEAST)}",
    ]
    done = subprocess.run(
        command, env={**os.environ, "CHROME_PATH": browser}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"Lighthouse failed: {done.stderr.strip()[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    main()
