"""Turn a trained model into the shipped one: half precision, and its card.

    python -m benchmarks.ship_model RUN/best

Writes src/dqecir/assets/dqecir-small and prints its size.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from dqecir.model.composed_model import SHIPPED_MODEL, ComposedModel

ROOT = Path(__file__).parent.parent


def main() -> None:
    model = ComposedModel.from_pretrained(Path(sys.argv[1]))
    model.card = (ROOT / "recipes" / "ship-shop-card.md").read_text(encoding="utf-8")
    # The package has the reader that every model without one of its own uses.
    folder = model.save_pretrained(ROOT / "src" / "dqecir" / "assets" / SHIPPED_MODEL, half=True)
    shutil.rmtree(folder / "reader")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
