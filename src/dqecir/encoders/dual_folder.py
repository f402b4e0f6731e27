"""Read published dual encoders from a folder; code is refused before a model is built."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dqecir.data.images import RESAMPLES, Preprocessing
from dqecir.encoders.checkpoint_files import State
from dqecir.encoders.checkpoints import LoadReport, load_strictly
from dqecir.encoders.dual import Dual, DualConfig, architecture_of, published_name, published_state
from dqecir.encoders.hf_checkpoints import hf_config, hf_tensors, json_of
from dqecir.encoders.open_clip import describes_open_clip, own_tokenizer
from dqecir.encoders.open_clip_folder import CLEANING, CONFIG, is_open_clip, read_open_clip, text_settings
from dqecir.encoders.tokenizer import WordPieces
from dqecir.errors import CheckpointError, reason_of

_OWN_CODE = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_STEPS = ("preprocess", "_preprocess", "resize", "center_crop", "rescale", "normalize", "pad")
"""Methods of transformers' image processors that :class:`Preprocessing` can replace if they are unchanged."""


def read_dual(folder: Path) -> tuple[Dual, Preprocessing, WordPieces, LoadReport]:
    """Read the dual encoder in ``folder``, its preprocessing and its tokenizer; report every key.

    Raises :class:`CheckpointError` if the folder needs its own code, if a file is missing or damaged, or if
    the weights do not fit ``config.json``.
    """
    open_clip = is_open_clip(folder)
    # For open_clip's weights only open_clip's configuration is read, so code in the folder is never run.
    refuse_own_code(folder, _OWN_CODE[1:] if open_clip else _OWN_CODE)
    architecture, state, prepared = dual_tensors(folder)
    try:
        if not describes_open_clip(architecture):
            architecture_of(architecture)
        read_tokenizer = _open_clip_tokenizer if open_clip else _tokenizer
        pieces, padding = read_tokenizer(folder, architecture)
        encoder = Dual(DualConfig(architecture=architecture, **padding))
    except CheckpointError as error:
        raise (
            error if str(error).startswith(str(folder)) else CheckpointError(f"{folder}: {error}")
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder} has settings that cannot be used ({reason_of(error)}): copy it again"
        ) from error
    if len(pieces) > encoder.sizes.vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(pieces)} tokens and the weights {encoder.sizes.vocabulary}: "
            "copy both from one revision"
        )
    report = load_strictly(
        encoder,
        published_state(state),
        lambda key: published_name(key, encoder.attends),
    )
    return encoder, prepared or preparation(folder, encoder.sizes.image), pieces, report


def dual_tensors(folder: Path) -> tuple[dict[str, Any], State, Preprocessing | None]:
    """Read the architecture of a dual encoder, its tensors under published names, and its preprocessing.

    The preprocessing is None for a folder of transformers. Raises :class:`CheckpointError` if a file is
    missing or damaged, or if the architecture is not supported.
    """
    if is_open_clip(folder):
        return read_open_clip(folder)
    architecture = hf_config(folder)
    try:
        architecture_of(architecture)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return architecture, hf_tensors(folder), None


def refuse_own_code(folder: Path, names: Sequence[str] = _OWN_CODE) -> None:
    """Raise :class:`CheckpointError` if a file in ``folder`` among ``names`` has an ``auto_map``.

    This entry names code that is not part of transformers. A damaged file raises the same error.
    """
    for name in names:
        named = (json_of(folder / name) or {}).get("auto_map")
        if named:
            raise CheckpointError(
                f"{folder} needs code of its own ({name} names it in auto_map), but dqecir never runs the "
                "code of a checkpoint: name an encoder whose class is in transformers (docs/encoders.md)"
            )


def preparation(folder: Path, image_size: int | None) -> Preprocessing:
    """Return the preprocessing in a folder of transformers.

    ``image_size`` is the size that the tower reads in pixels; None: any size. Raises :class:`CheckpointError`
    if both ``preprocessor_config.json`` and ``processor_config.json`` are missing, or if their settings are
    not supported by :class:`Preprocessing` or make pictures of another size.
    """
    names = ("preprocessor_config.json", "processor_config.json")
    if not any((folder / name).exists() for name in names):
        raise CheckpointError(f"{folder} has no preprocessor_config.json: copy it again")
    from transformers.image_processing_backends import PilBackend  # slow to import

    try:
        made: Any = _image_processor(folder)
    except Exception as error:  # transformers raises any kind of exception
        raise CheckpointError(
            f"{folder} has a preprocessor_config.json of an unknown kind ({reason_of(error)}): copy it again"
        ) from error
    plain = all(getattr(type(made), step, None) is getattr(PilBackend, step, None) for step in _STEPS)
    size, crop = made.size, made.crop_size if made.do_center_crop else None
    squash = bool(size and size.height and size.height == size.width)
    side = crop.height if crop is not None else size.height if squash else None
    shorter = None if squash or size is None else size.shortest_edge
    cut_after_squash = squash and crop is not None and crop.height != size.height
    square = crop is None or crop.height == crop.width
    if not (plain and made.do_resize and square and side and (squash or shorter)) or cut_after_squash:
        raise CheckpointError(
            f"{folder} has a preprocessing that is not supported ({type(made).__name__}, size {size}, crop "
            f"{crop}): name an encoder whose pictures are squares of one size"
        )
    if image_size is not None and side != image_size:
        raise CheckpointError(
            f"{folder}: preprocessor_config.json makes pictures of {side} pixels, but the model of "
            f"config.json reads {image_size}: download both files from the same revision"
        )
    # Fold a rescaling factor other than 1/255, and missing normalisation, into mean and deviation.
    factor = 255 * (made.rescale_factor if made.do_rescale else 1.0)
    try:
        return Preprocessing(
            size=side,
            shorter_side=shorter if shorter != side else None,
            squash=squash,
            pad_ratio=None,
            resample=RESAMPLES[int(made.resample)],
            mean=_scaled(made.image_mean if made.do_normalize else (0.0,) * 3, factor),
            std=_scaled(made.image_std if made.do_normalize else (1.0,) * 3, factor),
        )
    except (ValidationError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{folder} has an invalid image_mean, image_std or resample: copy its preprocessor_config.json "
            "again"
        ) from error


def _image_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    stated = json_of(folder / "preprocessor_config.json") or {}
    if str(stated.get("image_processor_type")).startswith("DINOv3ViT"):
        # The folder's own class needs torchvision; ViT's differs by less than 1/255 of a pixel's range.
        return ViTImageProcessorPil.from_pretrained(str(folder))
    return AutoImageProcessor.from_pretrained(str(folder), backend="pil")


def _scaled(values: Sequence[float], factor: float) -> tuple[float, float, float]:
    red, green, blue = (float(value) / factor for value in values)
    return red, green, blue


def _tokenizer(folder: Path, architecture: dict[str, Any]) -> tuple[WordPieces, dict[str, Any]]:
    """Return the tokenizer in a folder of transformers, and its padding as fields of :class:`DualConfig`."""
    if not _has_tokenizer(folder):
        raise CheckpointError(f"{folder} has no tokenizer (no tokenizer.json): copy it again")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # slow to import

    try:
        read: Any = _slow_or_fast(AutoTokenizer, folder)
        if read is None or not read.is_fast:
            # The tokenizer's own class needs sentencepiece; tokenizer.json holds the same tokens.
            if not (folder / "tokenizer.json").exists():
                raise CheckpointError(
                    f"{folder} has its tokenizer only as a sentencepiece model: name a revision that has a "
                    "tokenizer.json"
                )
            read = PreTrainedTokenizerFast.from_pretrained(str(folder))
        with tempfile.TemporaryDirectory() as scratch:
            read.save_pretrained(scratch)
            pieces = WordPieces.from_pretrained(Path(scratch))
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises any kind of exception
        raise CheckpointError(
            f"{folder} has a tokenizer that cannot be read ({reason_of(error)}): copy it again"
        ) from error
    return pieces, {
        "pad_id": int(read.pad_token_id or 0),
        "text_length": int(read.model_max_length),
        "pads_to_length": architecture.get("model_type") == "siglip",
        "pads_left": read.padding_side == "left",
        "sees_padding": "attention_mask" not in read.model_input_names,
    }


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"))


def _open_clip_tokenizer(folder: Path, architecture: dict[str, Any]) -> tuple[WordPieces, dict[str, Any]]:
    """Return the tokenizer of an open_clip checkpoint, and its padding as fields of :class:`DualConfig`."""
    text = text_settings(folder)
    settings = dict(text.get("tokenizer_kwargs") or {})
    cleaning = settings.pop("clean", "whitespace")
    if any(settings.values()) or text.get("tokenizer_mode") or cleaning not in CLEANING:
        raise CheckpointError(
            f"{folder}/{CONFIG} has settings of a tokenizer that are not supported: name another encoder"
        )
    own = describes_open_clip(architecture)
    if own and not text.get("hf_tokenizer_name") and not _has_tokenizer(folder):
        pieces, padding = own_tokenizer(architecture), dict[str, Any]()
    else:
        pieces, padding = _tokenizer(folder, architecture)
    padding["sees_padding"] = True
    if own:
        length = int(text.get("context_length", 77))
        padding |= {"text_length": length, "pads_to_length": True, "pads_left": False}
        if not text.get("hf_tokenizer_name"):
            padding["pad_id"] = 0  # open_clip's own tokenizer fills with it.
    return pieces.after(CLEANING[cleaning]), padding


def _slow_or_fast(reader: Any, folder: Path) -> Any:
    """Load the tokenizer with its own class; None if that class needs a package that is not installed."""
    try:
        return reader.from_pretrained(str(folder))
    except ImportError:
        return None
