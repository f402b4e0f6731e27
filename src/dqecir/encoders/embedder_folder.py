"""Read published embedders from a folder; code and pickles are refused before a model is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dqecir.encoders.dual_folder import refuse_own_code
from dqecir.errors import CheckpointError, reason_of

MODULES = "modules.json"
"""The file by which a folder of sentence-transformers is recognised."""


def read_sentence_transformer(folder: Path) -> Any:
    """Read the model of sentence-transformers in ``folder``.

    Raises :class:`CheckpointError` if the folder needs its own code, has weights only as a pickle, is
    incomplete or damaged, if the model does not take an image with a text, or if sentence-transformers is not
    installed.
    """
    check_modules(folder)
    model = _loaded(folder)
    if not all(model.supports(modality) for modality in ("image", ("image", "text"))):
        raise CheckpointError(
            f"{folder} takes {', '.join(map(str, model.modalities))} but not an image with a text: name an "
            "embedder that takes both (docs/encoders.md)"
        )
    return model


def check_modules(folder: Path) -> None:
    """Raise :class:`CheckpointError` if a folder needs its own code, or has weights only as a pickle.

    Also raise it if ``modules.json`` is missing or damaged.
    """
    try:
        modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        kinds = [str(module["type"]) for module in modules]
        places = [folder / str(module["path"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / MODULES} is damaged ({error}): copy it again") from error
    for place in (folder, *places):
        refuse_own_code(place)
    for kind in kinds:
        if not kind.startswith("sentence_transformers."):
            raise CheckpointError(
                f"{folder} needs code of its own ({MODULES} names {kind}), but dqecir never runs the code "
                "of a checkpoint: name an encoder whose classes are in sentence-transformers "
                "(docs/encoders.md)"
            )
    for pickled in (path for place in (folder, *places) for path in place.glob("*.bin")):
        if not any(pickled.parent.glob("*.safetensors")):
            raise CheckpointError(f"{pickled} is a pickle: name a revision with safetensors")


def _loaded(folder: Path) -> Any:
    try:
        from sentence_transformers import SentenceTransformer  # slow to import, and an extra
    except ImportError:
        raise CheckpointError(
            f"{folder} is an embedder of sentence-transformers, which is not installed: "
            "pip install 'dqecir[embedders]'"
        ) from None
    try:
        return SentenceTransformer(
            str(folder), device="cpu", trust_remote_code=False, local_files_only=True
        ).eval()
    except Exception as error:  # It raises any kind of exception.
        reason = reason_of(error)
        raise CheckpointError(f"{folder} cannot be read as an embedder ({reason}): copy it again") from error
