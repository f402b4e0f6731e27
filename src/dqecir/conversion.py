"""Checkpoints of published repositories, turned into ours: tensors alone, and a report of every key.

A whole model where its tower is one of ours (SPRC, QuRe, CoVR-2); the composer alone where it is
not (ResNet, BLIP, CLIP RN50x4), as a module over features that its owner has.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dqecir.attributes import TextEncoder
from dqecir.backbones.blip2 import Blip2
from dqecir.backbones.checkpoints import CheckpointError, LoadReport, load_strictly
from dqecir.backbones.lavis_sizes import lavis_sizes
from dqecir.data.images import Preprocessing
from dqecir.data.triplets import DataError
from dqecir.files import whole_folder, write_bytes, write_json
from dqecir.methods.method import METHODS, MethodContext
from dqecir.model import ComposedModel
from dqecir.strict import nearest

COMPOSER_FORMAT = 1
MAX_TEXT_LENGTH = 32
"""Word pieces that the published BLIP-2 methods read of a text."""

State = dict[str, Tensor]


def sources() -> list[str]:
    """Methods whose published checkpoints can be converted."""
    return sorted(
        name
        for name, kind in METHODS.items()
        if hasattr(kind, "load_published") or (hasattr(kind, "composer_of") and kind.published_keys)
    )


def read_published(path: Path) -> State:
    """The tensors of a checkpoint file: safetensors, or ``torch.save`` read with ``weights_only=True``.

    A state dict inside a training checkpoint is found where there is one alone. Raises
    :class:`CheckpointError` for a file that is missing, damaged, or would have to run code to be read.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, and reading that could run code: where you trust it, open it "
            "with the code that wrote it and save its state_dict() alone"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({error}): copy it again") from error
    return _without_prefix(_state_in(loaded, path))


def _state_in(loaded: Any, path: Path) -> State:
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds no state dict: name a checkpoint of weights")
    if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
        return dict(loaded)
    inside = {
        name: dict(value)
        for name, value in loaded.items()
        if isinstance(value, Mapping) and value and all(isinstance(part, Tensor) for part in value.values())
    }
    if len(inside) != 1:
        found = f"several state dicts ({', '.join(map(str, inside))})" if inside else "no state dict"
        raise CheckpointError(f"{path} holds {found}: save the one that is meant alone, and convert that")
    return next(iter(inside.values()))


def _without_prefix(state: State) -> State:
    """Names without what wrappers put before all of them (``module.``, ``model.``)."""
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def convert(
    source: str,
    path: Path,
    out: Path,
    *,
    pretrained: Path | None = None,
    tokenizer: str = "bert-base-uncased",
) -> LoadReport:
    """Turn the checkpoint ``path`` of the published method ``source`` into the folder ``out``.

    A whole model is a model folder; ``pretrained`` is the BLIP-2 checkpoint that it was trained from:
    the image tower is taken from it where the file has none, and the targets of a method that keeps
    them as they were before training. ``tokenizer`` is the folder or hub name of BERT's word pieces.
    A composer is read back with :func:`load_composer`. ``OUT/conversion.json`` says what became of every key.
    Raises :class:`DataError` or :class:`CheckpointError`; ``out`` is then as it was.
    """
    if source not in sources():
        raise DataError(
            f"no published checkpoint can be converted from {source!r}{nearest(source, sources())}"
        )
    state = read_published(path)
    if hasattr(METHODS[source], "load_published"):
        return _convert_whole(source, state, path, out, pretrained, tokenizer)
    return _convert_composer(source, state, path, out)


def _convert_whole(
    source: str, state: State, path: Path, out: Path, pretrained: Path | None, tokenizer: str
) -> LoadReport:
    lent = read_published(pretrained) if pretrained is not None else {}
    state = {key: value for key, value in lent.items() if key.startswith("visual_encoder.")} | state
    kind = METHODS[source]
    options = kind.options_type()
    backbone = Blip2(lavis_sizes(state))
    method: Any = kind.build(backbone, options, MethodContext())
    keeps_targets = hasattr(method, "target_backbone")
    report: LoadReport = method.load_published(*((state, lent) if lent and keeps_targets else (state,)))
    pieces = bert_tokenizer(tokenizer)
    if len(pieces) != backbone.config.vocabulary_size:
        raise DataError(
            f"the tokenizer {tokenizer} has {len(pieces)} word pieces and the checkpoint "
            f"{backbone.config.vocabulary_size}: name the one that it was trained with as --tokenizer"
        )
    preprocessing = Preprocessing(size=backbone.config.tower.image_size, squash=kind.published_squash)
    notes = {"converted_from": source, "file": path.name}
    encoder = TextEncoder(pieces, (), MAX_TEXT_LENGTH)
    model = ComposedModel(method, options, encoder, preprocessing, notes=notes)
    with whole_folder(out) as draft:
        model.save_pretrained(draft)
        write_json(draft / "conversion.json", _report(source, path, report))
    return report


def bert_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """BERT's word pieces with LAVIS' ``[DEC]``, from a folder or the hub; raises :class:`DataError`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the tokenizer {name} cannot be had: give a folder with bert-base-uncased's as --tokenizer"
        ) from error
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


def _convert_composer(source: str, state: State, path: Path, out: Path) -> LoadReport:
    composer, report = published_composer(source, state)
    with whole_folder(out) as draft:
        write_bytes(draft / "composer.safetensors", save(_contiguous(composer)))
        shapes = {key: list(value.shape) for key, value in state.items() if key not in report.dropped}
        write_json(
            draft / "config.json",
            {"format": COMPOSER_FORMAT, "composer": source, "published_shapes": shapes},
        )
        write_json(draft / "conversion.json", _report(source, path, report))
    return report


def published_composer(source: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, LoadReport]:
    """The composer of a published method with the weights of its state dict, and the report."""
    kind: Any = METHODS[source]
    composer: nn.Module = kind.composer_of(state)
    return composer, kind.published_keys.load(composer, state)


def load_composer(folder: Path) -> nn.Module:
    """The composer that :func:`convert` wrote, in evaluation mode.

    Raises :class:`CheckpointError` for a folder that is none.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        source, shapes, version = config["composer"], config["published_shapes"], config["format"]
        tensors = load_file(folder / "composer.safetensors")
    except (OSError, json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} is no converted composer, or is damaged ({error!r}): convert the checkpoint again"
        ) from error
    if version > COMPOSER_FORMAT or source not in sources():
        raise CheckpointError(f"{folder} was written by a newer dqecir: upgrade dqecir to read it")
    kind: Any = METHODS[source]
    composer: nn.Module = kind.composer_of({key: torch.empty(shape) for key, shape in shapes.items()})
    load_strictly(composer, tensors)
    return composer.eval()


def _contiguous(module: nn.Module) -> State:
    return {key: value.detach().contiguous().clone() for key, value in module.state_dict().items()}


def _report(source: str, path: Path, report: LoadReport) -> dict[str, Any]:
    return {
        "from": source,
        "file": path.name,
        "summary": str(report),
        "used": list(report.used),
        "not_needed": list(report.dropped),
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
    }
