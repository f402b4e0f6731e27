"""Write the import order of docs/rooms.yaml into docs/design.md: ``python benchmarks/write_design.py``."""

import re
from pathlib import Path

import yaml

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- rooms: written by benchmarks/write_design.py -->", "<!-- end of rooms -->"


def written(page: str, rooms: dict[str, list[str]]) -> str:
    """Return ``page`` with the block between the markers replaced by the table of rooms."""
    rows = [
        f"| `{room}/` | {', '.join(f'`{module}`' for module in modules)} |" for room, modules in rooms.items()
    ]
    block = "\n".join(
        [BEGIN, "", "| room | modules, each importing only those before it |", "|---|---|", *rows, "", END]
    )
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, page, flags=re.DOTALL)


def read_rooms() -> dict[str, list[str]]:
    """Return room -> modules, in import order."""
    rooms: dict[str, list[str]] = yaml.safe_load((DOCS / "rooms.yaml").read_text(encoding="utf-8"))
    return rooms


if __name__ == "__main__":
    design = DOCS / "design.md"
    design.write_text(written(design.read_text(encoding="utf-8"), read_rooms()), encoding="utf-8")
