"""Vision models of transformers as image towers: DINOv2, DINOv3, and the image halves of CLIP and SigLIP."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from dqecir.encoders.checkpoint_files import State
from dqecir.encoders.dual import ARCHITECTURES as DUAL_ENCODERS
from dqecir.encoders.dual import VisionTower
from dqecir.errors import CheckpointError, reason_of

VISION_MODELS = (
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "clip_vision_model",
    "siglip_vision_model",
    "chinese_clip_vision_model",
)
"""Supported values of ``model_type`` for vision models. Of supported dual encoders, only the image half is
used."""

_IMAGE_HALF = "vision_model."


def vision_tower(architecture: Mapping[str, Any]) -> VisionTower:
    """Return the tower of a ``config.json`` of transformers, with random weights.

    Its tokens are class and register tokens, if it has any, then patches row by row. Raises
    :class:`CheckpointError` for an unsupported kind, and for impossible sizes.
    """
    kind, config = _class_and_config(architecture)
    try:
        return VisionTower(kind(config))
    except Exception as error:  # transformers raises any kind of exception
        raise _misdescribed(architecture, error) from error


@lru_cache(maxsize=8)
def _token_shape(architecture: str, side: int) -> tuple[int, int]:
    with torch.device("meta"):
        tower = vision_tower(json.loads(architecture))
        try:
            tokens = tower.eval()(torch.empty(1, 3, side, side))
        except Exception as error:  # as above
            raise _misdescribed(json.loads(architecture), error) from error
    return tokens.shape[1], tokens.shape[2]


def token_shape(architecture: Mapping[str, Any], side: int) -> tuple[int, int]:
    """Return number and width (M, W) of the image tokens for pictures of ``side`` pixels.

    ``architecture`` is what the tower's ``config.json`` says. Raises :class:`CheckpointError` if the tower
    cannot read such pictures.
    """
    return _token_shape(json.dumps(architecture, sort_keys=True), side)


def patch_size(architecture: Mapping[str, Any]) -> int:
    """Return the side of a patch in pixels.

    Raises :class:`CheckpointError` if it is no number, or for an unsupported kind.
    """
    return _pixels(_class_and_config(architecture)[1], "patch_size")


def image_size(architecture: Mapping[str, Any]) -> int | None:
    """Return the side in pixels of the pictures that the tower reads; None if it reads any size.

    Raises :class:`CheckpointError` if it is no number, or for an unsupported kind.
    """
    config = _class_and_config(architecture)[1]
    return None if config.model_type.startswith("dino") else _pixels(config, "image_size")


def _pixels(config: Any, name: str) -> int:
    size = getattr(config, name, None)
    if not isinstance(size, int) or size < 1:
        raise CheckpointError(
            f"its config.json has the {name} {size!r}, but one number of pixels is needed: name another "
            "encoder"
        )
    return size


def loaded_state(architecture: Mapping[str, Any], state: State) -> State:
    """Return published weights under the names of :class:`VisionTower`.

    transformers renames the keys of its older versions. Raises :class:`CheckpointError` if a tensor of the
    vision model is missing, left over or has another shape.
    """
    kind, config = _class_and_config(architecture)
    half = {
        key.removeprefix(_IMAGE_HALF): value for key, value in state.items() if key.startswith(_IMAGE_HALF)
    }
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                None,
                config=config,
                state_dict=half or dict(state),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Exception as error:  # as above
        raise _misdescribed(architecture, error) from error
    wrong = [
        f"{len(keys)} {name}: {', '.join(keys[:5])}"
        for name in ("missing", "unexpected", "mismatched")
        if (keys := sorted(_name_of(key) for key in report[f"{name}_keys"]))
    ]
    if wrong:
        raise CheckpointError(
            f"the weights do not fit their config.json ({'; '.join(wrong)}): copy both again"
        )
    return {_IMAGE_HALF + key: value for key, value in model.state_dict().items()}


def _name_of(key: str | tuple[Any, ...]) -> str:
    return key if isinstance(key, str) else f"{key[0]} {list(key[1])} where {list(key[2])} is needed"


def _class_and_config(architecture: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the class of transformers for a vision model, and its configuration object."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoModel  # slow to import

    kind = architecture.get("model_type")
    if kind not in VISION_MODELS + DUAL_ENCODERS:
        raise CheckpointError(
            f"an image tower of the kind {kind!r} is not supported: name one of the kinds "
            f"{', '.join(VISION_MODELS + DUAL_ENCODERS)}"
        )
    try:
        config = CONFIG_MAPPING[kind].from_dict(dict(architecture))
        if hasattr(config, "vision_config"):
            with torch.device("meta"):
                return type(AutoModel.from_config(config).vision_model), config.vision_config
        return MODEL_MAPPING[type(config)], config
    except Exception as error:  # as above
        raise _misdescribed(architecture, error) from error


def _misdescribed(architecture: Mapping[str, Any], error: Exception) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    reason = reason_of(error)
    return CheckpointError(
        f"its config.json describes no {architecture.get('model_type')} that can be built ({reason}): "
        "copy it again"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing its own report and progress during the ``with`` block."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
