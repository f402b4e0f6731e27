"""Read BLIP-2 as transformers stores it (``Blip2ForImageTextRetrieval``): sizes, names, preprocessing.

It reads ``Salesforce/blip2-itm-vit-g`` (224 pixels) and ``-coco`` (364). A setting that dqecir does not
support raises an error, so that no result differs silently.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from dqecir.data.images import Preprocessing
from dqecir.encoders.blip2 import Blip2, Blip2Config
from dqecir.encoders.checkpoint_files import State, read_published
from dqecir.encoders.checkpoints import LoadReport, load_strictly
from dqecir.encoders.towers import TowerConfig
from dqecir.errors import CheckpointError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_NOT_NEEDED = re.compile(r"(^itm_head\.)|(position_ids$)")
_CLASSES = "name Salesforce/blip2-itm-vit-g, Salesforce/blip2-itm-vit-g-coco or weights of their class"
_FIXED = (
    ("vision_config", "hidden_act", ("gelu",)),
    # 1e-5 was the default of older transformers; EVA and our tower have 1e-6.
    ("vision_config", "layer_norm_eps", (1e-6, 1e-5)),
    ("qformer_config", "hidden_act", ("gelu",)),
    ("qformer_config", "layer_norm_eps", (1e-12,)),
)
"""(part, setting, supported values): settings of which :class:`Blip2` supports only these values."""


def hf_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` in a folder of transformers; sizes [S, S] of images and patches become S.

    Raises :class:`CheckpointError` if it is missing or damaged, or if images or patches are not squares.
    """
    config = json_of(folder / "config.json")
    if config is None:
        raise CheckpointError(f"{folder} has no config.json: name a folder that transformers wrote")
    for part in (config, config.get("vision_config")):
        if isinstance(part, dict):
            for name in ("image_size", "patch_size"):
                if isinstance(part.get(name), list):
                    part[name] = _side(part[name], f"{folder}/config.json has the {name}")
    return config


def hf_tensors(folder: Path) -> State:
    """Read all tensors in a folder of transformers, which may be in several files.

    Raises :class:`CheckpointError` if a file is missing or damaged.
    """
    for name in _WEIGHTS:
        if (folder / name).exists():
            return read_published(folder / name)
        index = json_of(folder / f"{name}.index.json")
        if index is not None:
            named = index.get("weight_map")
            if not isinstance(named, Mapping):
                raise CheckpointError(f"{folder / name}.index.json names no files of weights: copy it again")
            files = sorted({Path(str(file)).name for file in named.values()})
            tensors: State = {}
            for file in files:
                tensors |= read_published(folder / file)
            return tensors
    raise CheckpointError(f"{folder} has no weights (neither {' nor '.join(_WEIGHTS)}): copy it again")


def hf_sizes(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Blip2Config:
    """Return the configuration of a :class:`Blip2` from the ``config.json`` and the weights ``state``.

    Raises :class:`CheckpointError` if the tower, the text part or the queries are not supported.
    """
    if "qformer_config" not in config:
        raise CheckpointError(
            f"the checkpoint is of the kind {config.get('model_type')!r} and has no Q-Former: {_CLASSES}"
        )
    from transformers import Blip2Config as HfConfig  # slow to import

    try:
        read = HfConfig.from_dict(copy.deepcopy(dict(config)))
    except Exception as error:  # transformers raises any kind of exception
        raise CheckpointError(
            f"its config.json does not describe a BLIP-2 ({error!r}): {_CLASSES}"
        ) from error
    for part, name, known in _FIXED:
        found = getattr(getattr(read, part), name)
        if found not in known:
            raise CheckpointError(
                f"the checkpoint has {part}.{name} {found!r}, but only {known[0]!r} is supported: name "
                "another one"
            )
    vision, qformer = read.vision_config, read.qformer_config
    _check_parts(state, qformer.num_hidden_layers, read.num_query_tokens)
    return Blip2Config(
        tower=TowerConfig(
            kind="eva",
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            hidden_size=vision.hidden_size,
            layers=vision.num_hidden_layers,
            heads=vision.num_attention_heads,
            intermediate_size=vision.intermediate_size,
        ),
        hidden_size=qformer.hidden_size,
        layers=qformer.num_hidden_layers,
        heads=qformer.num_attention_heads,
        intermediate_size=qformer.intermediate_size,
        cross_attention_frequency=qformer.cross_attention_frequency,
        query_tokens=read.num_query_tokens,
        embedding_size=read.image_text_hidden_size,
        vocabulary_size=qformer.vocab_size,
        text_positions=qformer.max_position_embeddings,
        dropout=qformer.hidden_dropout_prob,
    )


def _check_parts(state: Mapping[str, Tensor], layers: int, queries: int) -> None:
    if not any(key.startswith("vision_model.") for key in state):
        raise CheckpointError(f"the checkpoint has no image tower (no vision_model.*): {_CLASSES}")
    # Judge by the weights, because early configurations spell ``use_qformer_text_input`` differently.
    text = ["embeddings.word_embeddings.weight"]
    text += [f"qformer.encoder.layer.{layer}.intermediate.dense.weight" for layer in range(layers)]
    lacking = [key for key in text if key not in state]
    if lacking:
        raise CheckpointError(
            f"the checkpoint's Q-Former cannot read text (it has no {lacking[0]}), like those of captioning "
            f"models: {_CLASSES}"
        )
    shape = tuple(state["query_tokens"].shape) if "query_tokens" in state else ()
    if len(shape) != 3 or shape[1] != queries:
        raise CheckpointError(
            f"the checkpoint's config.json has {queries} query tokens, and its weights "
            f"{shape[1] if len(shape) == 3 else 'none'}: copy both from one revision"
        )


def _side(sizes: list[Any], what: str) -> Any:
    if len(sizes) != 2 or sizes[0] != sizes[1]:
        raise CheckpointError(f"{what} {sizes}, but only squares are supported: name another encoder")
    return sizes[0]


def hf_state(state: Mapping[str, Tensor]) -> State:
    """Rename the tensors of a ``Blip2ForImageTextRetrieval`` to the names of :class:`Blip2`.

    The matching head and position ids, which :class:`Blip2` does not need, are left out.
    """
    renamed = {}
    for key, value in state.items():
        if not _NOT_NEEDED.search(key):
            ours = re.sub(r"^vision_model\.", "tower.vision_model.", key)
            renamed[ours.replace("tower.vision_model.post_layernorm.", "ln_vision.")] = value
    return renamed


def load_hf(model: Blip2, state: Mapping[str, Tensor]) -> LoadReport:
    """Load the weights of a ``Blip2ForImageTextRetrieval`` into ``model``, completely or not at all.

    They have no temperature, so the model keeps its own. Raises :class:`CheckpointError` that lists the keys
    if a tensor is missing, left over or has another shape.
    """
    own = {"temperature": model.temperature.detach().clone()}
    report = load_strictly(model, hf_state(state) | own, _hf_name)
    dropped = tuple(sorted(key for key in state if _NOT_NEEDED.search(key)))
    return replace(report, used=tuple(sorted(set(state) - set(dropped))), dropped=dropped)


def _hf_name(key: str) -> str:
    """Return the transformers name of a key of :class:`Blip2`."""
    named = re.sub(r"^ln_vision\.", "vision_model.post_layernorm.", key)
    return named.removeprefix("tower.")


def hf_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """Return the preprocessing in a folder of transformers: pictures are resized to a square and normalised.

    Settings that are missing are BLIP-2's. Raises :class:`CheckpointError` for settings that
    :class:`Preprocessing` does not support, and for another size than ``image_size`` pixels.
    """
    said = json_of(folder / "preprocessor_config.json")
    if said is None:
        said = (json_of(folder / "processor_config.json") or {}).get("image_processor", {})
    plain = Preprocessing(size=image_size, squash=True)
    wanted = plain.to_dict() | {"do_center_crop": False}
    for name in ("do_resize", "do_normalize", "do_rescale", "do_center_crop", "size", "resample"):
        # A null setting means the default.
        if said.get(name) is not None and said[name] != wanted[name]:
            raise CheckpointError(
                f"{folder} prepares its pictures with {name} {said[name]}, where {wanted[name]} is needed: "
                "name another one"
            )
    factor = said.get("rescale_factor")
    if factor is not None and abs(factor - wanted["rescale_factor"]) > 1e-6:
        raise CheckpointError(
            f"{folder} rescales its pictures by {factor}, where 1/255 is needed: name another one"
        )
    try:
        return Preprocessing(
            size=image_size,
            squash=True,
            mean=said.get("image_mean") or plain.mean,
            std=said.get("image_std") or plain.std,
        )
    except ValidationError as error:
        raise CheckpointError(
            f"{folder} has an invalid image_mean or image_std: copy its preprocessor_config.json again"
        ) from error


def json_of(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if the file is missing. Raises :class:`CheckpointError` if it is damaged."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): copy it again") from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{path} is not a map of settings: copy it again")
    return read
