"""Measure the pretrained backbone: accuracy of its attribute heads, and the cost of each stage.

    python -m benchmarks.backbone --model MODEL --data PHOTOS --data GARMENTS_VAL --work WORK

Prints one table and writes WORK/backbone.json for ``benchmarks/write_results.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import Counter
from pathlib import Path

import torch
from rich.table import Table

from dqecir.data.catalogue import read_catalogue
from dqecir.data.cells import UNKNOWN_CODE, has_value
from dqecir.io.files import write_json
from dqecir.io.progress import console
from dqecir.methods.attribute_heads import AttributeHeads
from dqecir.model.composed_model import ComposedModel
from dqecir.training.pretraining_data import LabelledImages, read_images


@torch.no_grad()
def head_accuracy(model: ComposedModel, heads: AttributeHeads, images: LabelledImages) -> dict[str, float]:
    """Return the share of images whose attribute the heads predict correctly, for each column and for ``all``
    together.

    Attributes that do not apply or are unknown are not counted.
    """
    empty = [v.index("") if "" in v else UNKNOWN_CODE for v in heads.config.columns.values()]
    known = (images.codes != UNKNOWN_CODE) & (images.codes != torch.tensor(empty))
    right = torch.ones_like(known)
    for start in range(0, len(images.pixels), 256):
        pixels = model.preprocessing.normalised(images.pixels[start : start + 256].float() / 255)
        logits = heads(model.backbone.image_tokens(pixels))
        for place, values in enumerate(logits.values()):
            right[start : start + 256, place] = (
                values.argmax(dim=1).cpu() == images.codes[start : start + 256, place]
            )
    accuracy = {
        column: float(right[known[:, place], place].float().mean())
        for place, column in enumerate(heads.config.columns)
        if bool(known[:, place].any())
    }
    accuracy["all"] = float((right | ~known).all(dim=1).float().mean())
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    model = ComposedModel.from_pretrained(options.model)
    assert model.heads is not None
    columns = dict(model.heads.config.columns)
    accuracy: dict[str, dict[str, float]] = {}
    majority: dict[str, dict[str, float]] = {}
    for folder in options.data:
        catalogue = read_catalogue(folder)
        images = read_images(catalogue, "val", columns, model.preprocessing)
        accuracy[folder.name] = head_accuracy(model, model.heads, images)
        majority[folder.name] = {}
        for column, values in catalogue.attributes.items():
            counts = Counter(values[i] for i in catalogue.splits["val"] if has_value(values[i]))
            if counts:
                majority[folder.name][column] = counts.most_common(1)[0][1] / counts.total()
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "cpu_seconds": dict(model.notes or {}).get("cpu_seconds", {}),
        "parameters": {
            "tower": sum(p.numel() for p in model.backbone.tower.parameters()),
            "whole": sum(p.numel() for p in model.backbone.parameters()),
        },
        "accuracy": accuracy,
        "majority": majority,
    }
    write_json(options.work / "backbone.json", result)
    names = [*columns, "all"]
    table = Table("", *names, title="share of val images whose attribute the heads name rightly")
    for name, row in accuracy.items():
        table.add_row(name, *(f"{row[c]:.3f}" if c in row else "" for c in names))
    console.print(table)
    print(json.dumps({"benchmark": "backbone", **result}))


if __name__ == "__main__":
    main()
