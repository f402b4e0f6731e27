"""Write 18_efficientnet_lite.safetensors: what the published network computes for made-up weights.

    pip install efficientnet-lite-pytorch
    python tests/golden/write_efficientnet.py

The weights follow from their names by a formula, so that none are stored.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent
SIDE = 64


def made_up(key: str, shape: list[int]) -> Tensor:
    """Return the weight of a key: waves about 0, or about 1 for scales and variances."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    phase = zlib.crc32(key.encode()) % 1000
    wave = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 1.7 + phase).float().view(shape)
    if len(shape) > 1:
        return wave * 1.6 / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.3 * wave if key.endswith(("weight", "running_var")) else 0.3 * wave


def picture() -> Tensor:
    """Return two images [2, 3, SIDE, SIDE]."""
    return torch.sin(torch.arange(2 * 3 * SIDE * SIDE) * 0.37).view(2, 3, SIDE, SIDE)


def main() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    shapes, outputs = {}, {}
    for variant in ("lite0", "lite1", "lite2"):
        network = EfficientNet.from_name(f"efficientnet-{variant}", image_size=SIDE).eval()
        shapes[variant] = {key: list(value.shape) for key, value in network.state_dict().items()}
        network.load_state_dict({key: made_up(key, shape) for key, shape in shapes[variant].items()})
        with torch.no_grad():
            outputs[variant] = network.extract_features(picture())
    (HERE / "18_efficientnet_lite.json").write_text(json.dumps(shapes, indent=0) + "\n")
    save_file(outputs, HERE / "18_efficientnet_lite.safetensors")


if __name__ == "__main__":
    main()
