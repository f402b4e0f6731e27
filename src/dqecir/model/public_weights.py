"""Open published weights of an encoder, or a model folder, as an untrained model."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dqecir.encoders.checkpoint_files import located
from dqecir.encoders.checkpoints import LoadReport
from dqecir.encoders.hf_checkpoints import json_of
from dqecir.encoders.open_clip_folder import is_open_clip
from dqecir.encoders.published import READERS, PublishedEncoder, form_of
from dqecir.encoders.tokenizer import WordPieces
from dqecir.errors import CheckpointError, DataError
from dqecir.io.device import chosen_device
from dqecir.model.composed_model import (
    SHIPPED_MODEL,
    ComposedModel,
    is_model_folder,
    new_model,
    untrained_method,
)

BERT = "bert-base-uncased"
"""Hub name of the tokenizer with which BLIP-2 was trained."""


def model_of(weights: str | Path, *, tokenizer: str = BERT, tower: str | Path | None = None) -> ComposedModel:
    """Open ``weights`` as a model with an untrained method (:func:`untrained_method`), in evaluation mode.

    ``weights`` is a model folder of dqecir, the name of the shipped model, a folder or hub name
    (``OWNER/NAME`` or ``OWNER/NAME@REVISION``) of transformers' ``Blip2ForImageTextRetrieval`` or of a dual
    encoder (CLIP, SigLIP and others), or a stage-1 checkpoint of LAVIS (``.pth`` or safetensors). ``tower``
    is the file of the image tower, for a LAVIS checkpoint without one; ``tokenizer`` the folder or hub name
    of BERT's word pieces, for weights of BLIP-2 without a tokenizer. Pictures are preprocessed as in the
    training of the weights. Raises :class:`DataError` with the reason if the weights cannot be used.
    """
    is_shipped = weights == SHIPPED_MODEL
    if not is_shipped:
        place, name = located(weights)
    if is_shipped or is_model_folder(place):
        if tower is not None:
            raise DataError("a model folder contains its image tower: name a tower only for a LAVIS file")
        model = ComposedModel.from_pretrained(None if is_shipped else name)
        return model.with_method(untrained_method(model.backbone), {})
    return read_weights(form_of(place), weights, tokenizer=tokenizer, tower=tower)[0]


def read_model(weights: Path | str | None = None) -> ComposedModel:
    """Read the model in ``weights``, onto the device of :func:`chosen_device`. Default: the shipped model.

    ``weights`` is a model folder, which is opened with its own method, or anything that :func:`model_of`
    opens. Raises :class:`DataError` if it cannot be read.
    """
    if weights == SHIPPED_MODEL:
        weights = None
    if weights is not None and (isinstance(weights, str) or weights.exists()):
        place, name = located(weights)
        if _is_published(place):
            return model_of(name).to(chosen_device())
    return ComposedModel.from_pretrained(weights).to(chosen_device())


def _is_published(place: Path) -> bool:
    """Return whether ``place`` is a checkpoint of others: a file, or a transformers or open_clip folder."""
    try:
        return (
            place.is_file() or is_open_clip(place) or "model_type" in (json_of(place / "config.json") or {})
        )
    except CheckpointError:
        return False  # reading it as a model folder raises an error that says what is wrong


def read_weights(
    form: str, weights: str | Path, *, tokenizer: str, tower: str | Path | None
) -> tuple[ComposedModel, LoadReport]:
    """Open published weights of an encoder as an untrained model, and report what became of every key.

    ``form`` is a key of :data:`READERS`, such as ``hf`` for BLIP-2 of transformers. The other arguments and
    the errors are those of :func:`model_of`.
    """
    read = READERS[form](weights, tower)
    pieces = read.pieces if read.pieces is not None else _word_pieces(read, tokenizer)
    notes = {"weights": str(weights), **read.notes}
    model = new_model(read.backbone, pieces, read.preprocessing, None, read.text_length, notes).eval()
    model.tower_source = read.tower_source
    return model, read.report


def _word_pieces(read: PublishedEncoder, tokenizer: str) -> WordPieces:
    size = read.backbone.sizes.vocabulary
    if read.tokenizer is not None:
        own = bert_tokenizer(str(read.tokenizer))
        # transformers adds the token ``<image>``, for which these weights have no embedding.
        if len(own) == size:
            return own
    return fitting_tokenizer(tokenizer, size)


def bert_tokenizer(name: str) -> WordPieces:
    """Load BERT's tokenizer from the folder or hub name ``name``, with LAVIS' extra token ``[DEC]``.

    Raises :class:`DataError` if it cannot be loaded.
    """
    from transformers import AutoTokenizer  # slow to import

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the tokenizer {name} cannot be loaded: name a folder that holds bert-base-uncased's with "
            "--tokenizer"
        ) from error
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        return WordPieces.from_pretrained(Path(scratch))


def fitting_tokenizer(name: str, size: int) -> WordPieces:
    """Load the tokenizer ``name``; raises :class:`DataError` if it does not have exactly ``size`` tokens."""
    pieces = bert_tokenizer(name)
    if len(pieces) != size:
        raise DataError(
            f"the tokenizer {name} has {len(pieces)} word pieces and the checkpoint {size}: name the one "
            "that it was trained with as --tokenizer"
        )
    return pieces
