"""Write the table of speeds in docs/encoders.md from the JSON of benchmarks/speed/encoders.py.

python -m benchmarks.write_encoder_speed WORK/encoders.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.pages import with_part
from benchmarks.write_performance import number, where

from dqecir.io.markdown import table

PAGE = Path(__file__).parent.parent / "docs" / "encoders.md"


def with_speed(page: str, found: dict[str, Any]) -> str:
    """Return ``page`` with its part "speed" replaced by the measured speeds."""
    rows = [
        [f"`{name}`", _spread(speed["pictures_per_second"]), _spread(speed["milliseconds"])]
        for name, speed in found["encoders"].items()
    ]
    lines = [
        *table(["encoder", "pictures a second, indexing", "milliseconds a query, median"], rows),
        "",
        f"{found['pictures']} photos; {found['queries']} queries of a photo and a text. The table has the "
        f"median of {found['rounds']} rounds in turns (least to most). {where(found)}",
    ]
    return with_part(page, "speed", lines)


def _spread(values: dict[str, float]) -> str:
    median, least, most = (number(values[key]) for key in ("median", "least", "most"))
    return f"{median} ({least} to {most})"


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    PAGE.write_text(with_speed(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
