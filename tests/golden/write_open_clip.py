"""Write 20_open_clip: what open_clip computes for made-up weights of a small CLIP and a small SigLIP.

    pip install --no-deps --target SITE torchvision==0.28.0 open_clip_torch==3.3.0 timm ftfy wcwidth
    PYTHONPATH=SITE:. python tests/golden/write_open_clip.py

The weights follow from their names by a formula, so that none are stored. The compiled part of torchvision
does not load beside a torch for CPUs alone; open_clip needs only that its operators have names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.golden.write_efficientnet import made_up

HERE = Path(__file__).parent
SIDE, WORDS, LENGTH, END = 32, 50, 12, 49
TEXT = {"context_length": LENGTH, "vocab_size": WORDS, "width": 64, "heads": 2, "layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {
        "embed_dim": 48,
        "quick_gelu": True,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": TEXT,
    },
    "siglip": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": SIDE,
            "timm_model_name": "vit_small_test_siglip",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **TEXT,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
        },
    },
}
"""As open_clip_config.json has them under ``model_cfg``."""


def weight(key: str, shape: list[int]) -> Tensor:
    """Return the weight of a key."""
    if key == "logit_scale":
        return torch.tensor(2.5)
    if key == "logit_bias":
        return torch.tensor(-3.0)
    value = made_up(key, shape)
    return value if "embedding" not in key else 3 * value


def pictures() -> Tensor:
    """Return two images [2, 3, SIDE, SIDE]."""
    return torch.sin(torch.arange(2 * 3 * SIDE * SIDE) * 0.37).view(2, 3, SIDE, SIDE)


def texts(kind: str) -> tuple[Tensor, Tensor]:
    """Return ids and mask [2, LENGTH] of two texts; CLIP's have a start and an end."""
    rows = [[48, 3, 7, 11, END], [48, 5, END]] if kind == "clip" else [[3, 7, 11, 1], [5, 1]]
    mask = torch.tensor([[float(place < len(row)) for place in range(LENGTH)] for row in rows]).long()
    fill = 0 if kind == "clip" else 1
    return torch.tensor([row + [fill] * (LENGTH - len(row)) for row in rows]), mask


_named: list[torch.library.Library] = []


def name_operators() -> None:
    """Name the operators of torchvision where its compiled part has not done so."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _named.append(operators)  # The names last as long as this object.


def main() -> None:
    name_operators()
    import open_clip
    import timm
    from timm.models.vision_transformer import VisionTransformer

    def vit_small_test_siglip(pretrained: bool = False, **settings: Any) -> VisionTransformer:
        settings = {key: value for key, value in settings.items() if not key.startswith("pretrained")}
        sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1}
        own = {"class_token": False, "global_pool": "map"}
        for extra in ("cache_dir", "no_grad", "scriptable"):
            settings.pop(extra, None)
        return VisionTransformer(**{**sizes, **own, **settings})

    sys.modules[__name__].__dict__["vit_small_test_siglip"] = vit_small_test_siglip
    timm.models.register_model(vit_small_test_siglip)
    shapes, outputs = {}, {}
    for kind, config in CONFIGS.items():
        said = {key: value for key, value in config.items() if key != "custom_text"}
        model = (open_clip.CustomTextCLIP if kind == "siglip" else open_clip.CLIP)(**said).eval()
        shapes[kind] = {key: list(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict({key: weight(key, shape) for key, shape in shapes[kind].items()})
        with torch.no_grad():
            outputs[f"{kind}.image"] = model.encode_image(pictures())
            outputs[f"{kind}.text"] = model.encode_text(texts(kind)[0])
    (HERE / "20_open_clip.json").write_text(json.dumps(shapes, indent=0) + "\n")
    save_file(outputs, HERE / "20_open_clip.safetensors")


if __name__ == "__main__":
    main()
