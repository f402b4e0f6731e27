"""Write the import order of docs/rooms.yaml into docs/design.md: ``python -m benchmarks.write_design``."""

from pathlib import Path

import yaml
from benchmarks.pages import with_part

DOCS = Path(__file__).parent.parent / "docs"


def written(page: str, rooms: dict[str, list[str]]) -> str:
    """Return ``page`` with its part "rooms" replaced by the table of rooms."""
    rows = [
        f"| `{room}/` | {', '.join(f'`{module}`' for module in modules)} |" for room, modules in rooms.items()
    ]
    return with_part(
        page, "rooms", ["| room | modules, each importing only those before it |", "|---|---|", *rows]
    )


def read_rooms() -> dict[str, list[str]]:
    """Return room -> modules, in import order."""
    rooms: dict[str, list[str]] = yaml.safe_load((DOCS / "rooms.yaml").read_text(encoding="utf-8"))
    return rooms


if __name__ == "__main__":
    design = DOCS / "design.md"
    design.write_text(written(design.read_text(encoding="utf-8"), read_rooms()), encoding="utf-8")
