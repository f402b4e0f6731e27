"""Padding to a square, as published, is TargetPad of ratio 1."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from dqecir.data.images import target_pad

ROWS = json.loads((Path(__file__).parent.parent / "golden" / "12_text_pad_schedule.json").read_text())


def test_the_square_pad_is_the_published_one():
    for width, height, (left, top, right, bottom) in ROWS["square_pad"]["rows"]:
        padded = np.asarray(target_pad(Image.new("RGB", (width, height), (255, 255, 255)), 1.0))[:, :, 0]
        assert padded.shape == (height + top + bottom, width + left + right)
        rows, columns = np.nonzero(padded)
        assert (columns.min(), rows.min()) == (left, top)
        assert (columns.max(), rows.max()) == (left + width - 1, top + height - 1)
