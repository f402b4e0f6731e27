"""Name the attributes of pictures by an image tower and its heads.

It is that of a model, or lies in a folder of its own, which holds ``config.json``,
``model.safetensors`` and a ``README.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dqecir.data.images import Preprocessing
from dqecir.encoders.checkpoint_files import read_published
from dqecir.encoders.checkpoints import load_strictly
from dqecir.encoders.towers import TowerConfig, build_tower
from dqecir.errors import DataError
from dqecir.io.device import chosen_device
from dqecir.io.files import whole_folder, write_json, write_text
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.model.composed_model import ComposedModel
from dqecir.settings import Strict, read_settings

SHIPPED_DESCRIBER = "describer"
"""Name of the folder that comes with the package."""


class DescriberConfig(Strict):
    """The content of ``config.json``."""

    kind: Literal["describer"] = "describer"
    tower: TowerConfig
    heads: HeadsConfig
    preprocessing: Preprocessing
    notes: Mapping[str, Any] = {}
    """How it was trained."""


@dataclass
class Describer:
    """A frozen image tower and the heads that name what its tokens show."""

    tower: nn.Module
    heads: AttributeHeads
    preprocessing: Preprocessing
    card: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ComposedModel) -> Self:
        """Return the tower and the heads of a model; raises :class:`DataError` where it has no heads."""
        if model.heads is None:
            raise DataError("this model has no attribute heads: choose another --model")
        return cls(model.backbone.tower, model.heads, model.preprocessing)

    @classmethod
    def from_pretrained(cls, folder: Path | None = None) -> Self:
        """Read a folder of :meth:`save_pretrained` or of a model. Default: the one of the package.

        It is on the chosen device. Raises :class:`DataError` or :class:`CheckpointError` as
        :meth:`ComposedModel.from_pretrained` does.
        """
        if folder is None:
            with resources.as_file(resources.files("dqecir") / "assets" / SHIPPED_DESCRIBER) as shipped:
                found = cls._read(shipped)
        elif _is_describer(folder):
            found = cls._read(folder)
        else:
            found = cls.of(ComposedModel.from_pretrained(folder))
        found.tower.to(chosen_device())
        found.heads.to(chosen_device())
        return found

    @classmethod
    def _read(cls, folder: Path) -> Self:
        config = read_settings(folder / "config.json", DescriberConfig)
        found = cls(
            build_tower(config.tower), AttributeHeads(config.heads), config.preprocessing, notes=config.notes
        )
        load_strictly(found._modules, read_published(folder / "model.safetensors"))
        found._modules.requires_grad_(False).eval()
        return found

    @property
    def _modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"tower": self.tower, "heads": self.heads})

    def save_pretrained(self, folder: Path, config: TowerConfig) -> Path:
        """Write the folder, whole or not at all, with weights as float16; ``config`` is the tower's."""
        written = DescriberConfig(
            tower=config, heads=self.heads.config, preprocessing=self.preprocessing, notes=self.notes
        )
        tensors = {
            name: (value.half() if value.is_floating_point() else value).contiguous().clone()
            for name, value in self._modules.state_dict().items()
        }
        with whole_folder(folder) as draft:
            write_json(draft / "config.json", written.model_dump(mode="json", exclude_defaults=True))
            save_file(tensors, draft / "model.safetensors")
            write_text(draft / "README.md", self.card or "# Describer\n")
        return folder

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the probabilities [B, values] of every column for normalised pixels [B, 3, S, S].

        They are the mean over each picture and its mirror image, which shows the same garment.
        """
        pixels = pixels.to(self.heads.queries.device)
        views = [self.heads(self.tower(view)) for view in (pixels, pixels.flip(3))]
        return {
            column: torch.stack([view[column].float().softmax(dim=1) for view in views]).mean(dim=0)
            for column in self.heads.config.columns
        }


def _is_describer(folder: Path) -> bool:
    try:
        text = (folder / "config.json").read_text(encoding="utf-8")
        return '"tower"' in text and '"method"' not in text
    except (OSError, UnicodeDecodeError):
        return False
