"""Read published vision models from a folder; code is refused before a model is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dqecir.data.images import Preprocessing
from dqecir.encoders.checkpoint_files import State
from dqecir.encoders.dual_folder import preparation, refuse_own_code
from dqecir.encoders.hf_checkpoints import hf_config, hf_tensors
from dqecir.encoders.towers import TowerConfig
from dqecir.encoders.transformers_tower import image_size, loaded_state
from dqecir.errors import CheckpointError


@dataclass(frozen=True)
class PublishedTower:
    """A published image tower: its sizes, weights and preprocessing.

    The weights have the names of :class:`~dqecir.encoders.dual.VisionTower`.
    """

    config: TowerConfig
    state: State
    preprocessing: Preprocessing


def read_tower(folder: Path) -> PublishedTower:
    """Read the vision model in ``folder``, or the image half of a dual encoder.

    Raises :class:`CheckpointError` if the folder needs its own code, if a file is missing or damaged, or if
    the weights do not fit ``config.json``.
    """
    refuse_own_code(folder)
    architecture = hf_config(folder)
    try:
        side = image_size(architecture)
        state = loaded_state(architecture, hf_tensors(folder))
        preprocessing = preparation(folder, side)
        config = TowerConfig(kind="transformers", image_size=preprocessing.size, architecture=architecture)
        config.token_count  # noqa: B018  a size that the tower does not read is refused here
    except CheckpointError as error:
        raise error if str(folder) in str(error) else CheckpointError(f"{folder}: {error}") from error
    return PublishedTower(config, state, preprocessing)
