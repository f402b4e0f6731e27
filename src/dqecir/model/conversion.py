"""Convert published checkpoints: only tensors are read, and every key is reported.

There are three kinds: weights of encoders, such as BLIP-2's in the form of transformers (``hf``) or LAVIS
(``lavis``); whole models, if the package has their tower (SPRC, QuRe, CoVR-2); and composers alone (of models
with ResNet, BLIP or CLIP RN50x4), which take features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dqecir.data.images import Preprocessing
from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.checkpoint_files import State, read_published
from dqecir.encoders.checkpoints import LoadReport, load_strictly
from dqecir.encoders.lavis_sizes import lavis_sizes, lavis_tower
from dqecir.encoders.published import MAX_TEXT_LENGTH, READERS
from dqecir.errors import CheckpointError, DataError
from dqecir.io.files import whole_folder, write_bytes, write_json
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.method import MethodContext, all_methods, method_named
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import BERT, fitting_tokenizer, read_weights
from dqecir.settings import nearest

COMPOSER_FORMAT = 1


def sources() -> list[str]:
    """Return everything that can be converted: forms of encoders' weights, such as ``hf``, and methods."""
    return sorted([*READERS, *_methods()])


def _methods() -> list[str]:
    """Return the names of the methods whose published checkpoints can be converted."""
    return sorted(
        name
        for name, kind in all_methods().items()
        if hasattr(kind, "load_published") or (hasattr(kind, "composer_of") and kind.published_keys)
    )


def convert(
    source: str,
    path: Path,
    out: Path,
    *,
    pretrained: Path | None = None,
    tokenizer: str = BERT,
) -> LoadReport:
    """Convert the published checkpoint ``path`` into the folder ``out``; return what became of every key.

    ``source`` is a name from :func:`sources`. For weights of an encoder the result is an untrained model, and
    ``path`` may be a hub name. ``pretrained`` is the BLIP-2 checkpoint from which the published model was
    trained: it gives the image tower if ``path`` has none (a file with only the tower is enough), and the
    target embeddings of methods that do not train them. ``tokenizer`` is the folder or hub name of BERT's
    word pieces. A composer is read with :func:`load_composer`. The report is also written to
    ``OUT/conversion.json``. Raises :class:`DataError` or :class:`CheckpointError`; ``out`` is then not
    changed.
    """
    if source not in sources():
        raise DataError(
            f"no published checkpoint can be converted from {source!r}{nearest(source, sources())}"
        )
    if source in READERS:
        return _convert_weights(source, path, out, pretrained, tokenizer)
    state = read_published(path)
    if hasattr(method_named(source), "load_published"):
        return _convert_whole(source, state, path, out, pretrained, tokenizer)
    return _convert_composer(source, state, path, out)


def _convert_weights(form: str, path: Path, out: Path, pretrained: Path | None, tokenizer: str) -> LoadReport:
    model, report = read_weights(form, str(path), tokenizer=tokenizer, tower=pretrained)
    model.notes = {**(model.notes or {}), "converted_from": form}
    _write_model(model, form, path, out, report)
    return report


def _write_model(model: ComposedModel, source: str, path: Path, out: Path, report: LoadReport) -> None:
    with whole_folder(out) as draft:
        model.save_pretrained(draft)
        write_json(draft / "conversion.json", _report(source, path, report))


def _convert_whole(
    source: str, state: State, path: Path, out: Path, pretrained: Path | None, tokenizer: str
) -> LoadReport:
    lent = read_published(pretrained) if pretrained is not None else {}
    state = lavis_tower(lent) | state
    kind = method_named(source)
    options = kind.options_type()
    backbone = Blip2(lavis_sizes(state))
    method: Any = kind.build(backbone, options, MethodContext())
    keeps_targets = hasattr(method, "target_backbone")
    report: LoadReport = method.load_published(*((state, lent) if lent and keeps_targets else (state,)))
    pieces = fitting_tokenizer(tokenizer, backbone.config.vocabulary_size)
    preprocessing = Preprocessing(size=backbone.config.tower.image_size, squash=kind.published_squash)
    notes = {"converted_from": source, "file": path.name}
    encoder = TextEncoder(pieces, (), MAX_TEXT_LENGTH)
    model = ComposedModel(method, options, encoder, preprocessing, notes=notes)
    _write_model(model, source, path, out, report)
    return report


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
    """Return the composer of the method ``source``, with the weights of the published state dict ``state``.

    The report says which keys were used. Raises :class:`CheckpointError` if the state dict has no such
    composer.
    """
    kind: Any = method_named(source)
    composer: nn.Module = kind.composer_of(state)
    return composer, kind.published_keys.load(composer, state)


def load_composer(folder: Path) -> nn.Module:
    """Read a composer that :func:`convert` wrote, in evaluation mode.

    Raises :class:`CheckpointError` if the folder has none, or if a newer dqecir wrote it.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        source, shapes, version = config["composer"], config["published_shapes"], config["format"]
        tensors = load_file(folder / "composer.safetensors")
    except (OSError, json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} is not a converted composer, or is damaged ({error!r}): convert the checkpoint again"
        ) from error
    if version > COMPOSER_FORMAT or source not in _methods():
        raise CheckpointError(f"{folder} was written by a newer dqecir: upgrade dqecir to read it")
    kind: Any = method_named(source)
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
