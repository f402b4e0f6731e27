"""A composed model and its folder: a method, its encoder, and everything needed to read a query.

A model folder has ``config.json``, ``model.safetensors``, the tokenizer, ``preprocessor_config.json``, the
attribute vocabularies, the text reader and a ``README.md``; no file in it is pickled. Instead of a frozen
tower, the folder may name a file that has it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Self

import huggingface_hub
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dqecir.data.images import Preprocessing
from dqecir.encoders.checkpoint_files import HUB_NAME, located
from dqecir.encoders.checkpoints import load_strictly
from dqecir.encoders.encoder import Encoder, encoder_named
from dqecir.encoders.licences import Origin
from dqecir.encoders.published import tower_state
from dqecir.encoders.tokenizer import TextTokenizer
from dqecir.errors import CheckpointError, DataError, reason_of
from dqecir.io.files import whole_folder, write_json, write_text
from dqecir.language.own_words import vocabularies_for
from dqecir.language.reader_version import READER_VERSION
from dqecir.language.tagging import Tagger, shipped_name, shipped_tagger
from dqecir.language.vocabulary import Vocabulary, load_vocabulary
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig, TextEncoder
from dqecir.methods.method import Method, MethodContext, MethodOptions, method_named
from dqecir.model.fingerprints import (
    TARGET,
    fingerprint_of_0_1_0,
    model_fingerprint,
    target_fingerprint,
    tower_fingerprint,
)
from dqecir.settings import parse_settings

FORMAT = 3
"""Format version of a model folder whose encoder is not BLIP-2; folders with a newer format are refused."""

NAMED_TOWER_FORMAT = 2
"""Format version of a BLIP-2 folder that names the file of its tower."""

WHOLE_FORMAT = 1
"""Format version of a BLIP-2 folder that contains its tower."""

BLIP2 = "blip2"
"""Kind of encoder of a model folder whose ``config.json`` names none."""

READER = "reader"
"""Sub-folder of a model's own text reader; a model without it uses the one of the package."""

_BACKBONE = "method.backbone."
_TOWER = f"{_BACKBONE}tower."

SHIPPED_MODEL = "dqecir-small"
"""Name of the model that comes with the package."""


@dataclass
class ComposedModel:
    """A method with its text encoder, its preprocessing of pictures, and optional parts.

    ``heads`` predict attributes of images, if the encoder was trained with them. ``card`` is the text of the
    model card. ``notes`` say how the model was trained; they are written to ``config.json``. ``tower_source``
    is a folder, a file or a hub name (``OWNER/NAME@REVISION``) that also has the tower's weights; None if
    there is none.
    """

    method: Method
    options: MethodOptions
    text_encoder: TextEncoder
    preprocessing: Preprocessing
    heads: AttributeHeads | None = None
    card: str = ""
    notes: Mapping[str, Any] | None = None
    tower_source: str | None = None
    tagger: Tagger | None = None
    """The text reader. None: the one of the package."""

    @property
    def backbone(self) -> Encoder:
        """The encoder that the method composes with."""
        return self.method.backbone

    @property
    def vocabularies(self) -> tuple[Vocabulary, ...]:
        """The attribute vocabularies; everything that has one entry for each attribute is in this order."""
        return self.text_encoder.vocabularies

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.method.device

    def to(self, device: torch.device | str) -> Self:
        """Move all weights to a device; return this model."""
        self.method.to(device)
        if self.heads is not None:
            self.heads.to(device)
        return self

    def eval(self) -> Self:
        """Set all parts to evaluation mode; return this model."""
        self.method.eval()
        if self.heads is not None:
            self.heads.eval()
        return self

    def with_method(self, name: str, options: Mapping[str, Any]) -> ComposedModel:
        """Return a model with the untrained method ``name``; both models share one encoder.

        Raises :class:`DataError` for an unknown method or option, or if the method does not fit the encoder.
        """
        kind = method_named(name)
        parsed = parse_settings(options, kind.options_type, f"the options of {name}")
        vocabularies = self.vocabularies_of(parsed)
        if "attributes" in kind.options_type.model_fields:
            parsed = parsed.model_copy(update={"attributes": tuple(one.name for one in vocabularies)})
        encoder = TextEncoder(self.text_encoder.tokenizer, vocabularies, self.text_encoder.max_length)
        method = kind.build(self.backbone, parsed, context_of(encoder, self.heads)).to(self.device)
        return replace(self, method=method, options=parsed, text_encoder=encoder)

    def vocabularies_of(self, options: MethodOptions) -> list[Vocabulary]:
        """Return the vocabularies that ``options`` name, in their order, then those of other named columns.

        A column in the options that none of these vocabularies knows gets one of this model or of the package
        that knows it, else one in which the values of its attribute head have their own names. Raises
        :class:`DataError` for an unknown vocabulary.
        """
        wanted: Sequence[str] = getattr(options, "attributes", ())
        known = {vocabulary.name: vocabulary for vocabulary in self.vocabularies}
        chosen = [known[name] if name in known else load_vocabulary(name) for name in wanted]
        heads = self.heads.config.columns if self.heads is not None else {}
        others = {
            column: heads[column]
            for column in getattr(options, "columns", None) or ()
            if column in heads and all(one.column(column) is None for one in chosen)
        }
        return [*chosen, *vocabularies_for(others, self.vocabularies)]

    @cached_property
    def tower_fingerprint(self) -> str:
        """Fingerprint of the tower's weights and the preprocessing, on which stored image tokens depend."""
        return tower_fingerprint(self.backbone.tower.state_dict(), self.preprocessing)

    @cached_property
    def target_fingerprint(self) -> str:
        """Fingerprint of everything on which target embeddings, and so an index, depend."""
        return target_fingerprint(self.method, self.tower_fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of everything on which results depend: weights, options, vocabularies, text reader."""
        return model_fingerprint(
            self.method,
            self.options,
            self.heads,
            self.text_encoder,
            self.target_fingerprint,
            shipped_name() if self.tagger is None else self.tagger.name,
        )

    def forget_fingerprints(self) -> None:
        """Drop the stored fingerprints, so that they are computed again when they are next needed.

        Call this after weights outside of the frozen tower have changed; the tower's fingerprint is kept.
        """
        for name in ("target_fingerprint", "fingerprint"):
            self.__dict__.pop(name, None)

    def index_fingerprint(self, like: str) -> str:
        """Return the fingerprint that an index of this model should have, to compare it with ``like``.

        ``like`` is the fingerprint that an index stores. If version 0.1.0 wrote the index, the result is
        computed as in that version.
        """
        if like.startswith(TARGET):
            return self.target_fingerprint
        return fingerprint_of_0_1_0(self.method, self.tower_fingerprint)

    def save_pretrained(
        self, folder: Path | str, half: bool = False, tower_by_reference: bool = False
    ) -> Path:
        """Write the model to ``folder``, completely or not at all; return the folder.

        ``half``: store weights as float16. ``tower_by_reference``: store name and fingerprint of the frozen
        tower instead of its weights. Raises :class:`DataError` if the tower is then stored nowhere else, is
        in ``folder`` itself, which is replaced, or was trained.
        """
        target = Path(folder)
        tower = self._tower_reference(target) if tower_by_reference else None
        with whole_folder(target) as draft:
            write_json(draft / "config.json", self._config(tower))
            _write_tensors(draft / "model.safetensors", self._tensors(half, tower_by_reference))
            self.backbone.save_own(draft)
            self.text_encoder.tokenizer.save_pretrained(draft)
            write_json(draft / "preprocessor_config.json", self.preprocessing.to_dict())
            for vocabulary in self.vocabularies:
                text = yaml.safe_dump(
                    vocabulary.model_dump(mode="json", exclude_defaults=True),
                    sort_keys=False,
                    allow_unicode=True,
                )
                write_text(draft / "vocabularies" / f"{vocabulary.name}.yaml", text)
            (self.tagger or shipped_tagger()).save(draft / READER)
            write_text(draft / "README.md", self.card or self._plain_card())
        return target

    def _plain_card(self) -> str:
        origin = self.backbone.origin
        encoder = f"\nIts encoder: {origin}.\n" if origin.source else ""
        return f"# {self.method.name}\n\nA dqecir model.\n{encoder}"

    def push_to_hub(
        self, repo_id: str, *, half: bool = False, tower_by_reference: bool = False, private: bool = True
    ) -> None:
        """Upload the model to ``repo_id`` (OWNER/NAME) of the hub, which is created if necessary.

        With ``tower_by_reference`` the tower must have a hub name itself. Log in with ``hf auth login``
        first. ``half`` and ``tower_by_reference`` as in :meth:`save_pretrained`; ``private``: whether others
        cannot see it. Raises :class:`DataError` if the hub refuses the upload.
        """
        source = self.tower_source
        if tower_by_reference and source is not None and HUB_NAME.fullmatch(source) is None:
            raise DataError(f"{source} is a file of this machine only: push the model with its tower")
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.save_pretrained(Path(scratch) / "model", half, tower_by_reference)
            try:
                huggingface_hub.create_repo(repo_id, private=private, exist_ok=True)
                huggingface_hub.upload_folder(repo_id=repo_id, folder_path=folder)
            except (OSError, ValueError) as error:
                reason = reason_of(error)
                raise DataError(
                    f"the hub refused {repo_id} ({reason}): check the name, and log in (hf auth login)"
                ) from error

    def _tower_reference(self, target: Path) -> dict[str, str]:
        if self.tower_source is None:
            raise DataError("no other file holds the tower of this model: save the model with its tower")
        if not self.backbone.tower.state_dict():
            raise DataError(f"the encoder {self.backbone} has no tower of its own: save the whole model")
        if any(parameter.requires_grad for parameter in self.backbone.tower.parameters()):
            raise DataError("the tower of this model is trained, not frozen: save the model with its tower")
        # Saving replaces the whole folder, and would delete a tower in it.
        if Path(self.tower_source).is_relative_to(target.resolve()):
            raise DataError(f"{target} contains the tower itself: save to another folder, or with the tower")
        return {"weights": self.tower_source, "fingerprint": self.tower_fingerprint}

    def _config(self, tower: Mapping[str, str] | None) -> dict[str, Any]:
        backbone = self.backbone
        reference = {"tower": dict(tower)} if tower is not None else {}
        own: dict[str, Any] = {}
        if backbone.kind != BLIP2 or backbone.origin != Origin():
            origin = backbone.origin.model_dump(mode="json")
            own["encoder"] = {
                "kind": backbone.kind,
                **origin,
                "non_commercial": backbone.origin.non_commercial,
            }
        return {
            "format": _format_of(backbone, bool(reference)),
            **own,
            "method": self.method.name,
            "options": self.options.model_dump(mode="json"),
            "backbone": backbone.config.model_dump(mode="json"),
            "heads": self.heads.config.model_dump(mode="json") if self.heads is not None else None,
            "vocabularies": [vocabulary.name for vocabulary in self.vocabularies],
            "max_text_length": self.text_encoder.max_length,
            "reader_version": READER_VERSION,
            "notes": dict(self.notes or {}),
            **reference,
        }

    def _tensors(self, half: bool, without_tower: bool) -> dict[str, Tensor]:
        parts: dict[str, nn.Module] = {"method": self.method}
        if self.heads is not None:
            parts["heads"] = self.heads
        elsewhere = tuple(_BACKBONE + prefix for prefix in self.backbone.own_weights)
        if without_tower:
            elsewhere += (_TOWER,)
        tensors: dict[str, Tensor] = {}
        for name, module in parts.items():
            for key, value in module.state_dict().items():
                if f"{name}.{key}".startswith(elsewhere):
                    continue
                stored = value.detach().cpu()
                tensors[f"{name}.{key}"] = stored.half() if half and stored.is_floating_point() else stored
        return tensors

    @classmethod
    def from_pretrained(cls, folder: Path | str | None = None) -> ComposedModel:
        """Read a model folder. Default: the shipped model.

        A ``str`` may be a hub name (``OWNER/NAME`` or ``OWNER/NAME@REVISION``). Raises :class:`DataError` or
        :class:`CheckpointError` if the folder is no model folder, is incomplete or inconsistent, was written
        by a newer dqecir, or names a tower that is missing or has changed.
        """
        if folder is None:
            with resources.as_file(resources.files("dqecir") / "assets" / SHIPPED_MODEL) as shipped:
                return cls._read(shipped, None)
        if isinstance(folder, str):
            return cls._read(*located(folder))
        return cls._read(folder, str(folder.resolve()))

    @classmethod
    def _read(cls, folder: Path, tower_source: str | None) -> ComposedModel:
        config = _read_config(folder)
        vocabularies = [
            _read_vocabulary(folder / "vocabularies" / f"{name}.yaml") for name in config["vocabularies"]
        ]
        backbone = _read_encoder(folder, config)
        tokenizer = backbone.read_tokenizer(folder)
        encoder = TextEncoder(tokenizer, vocabularies, config["max_text_length"])
        kind = method_named(config["method"])
        options = parse_settings(config["options"], kind.options_type, f"{folder}/config.json, options")
        heads = None
        if config["heads"] is not None:
            heads = AttributeHeads(
                parse_settings(config["heads"], HeadsConfig, f"{folder}/config.json, heads")
            )
        preprocessing = Preprocessing.from_dict(_read_json(folder / "preprocessor_config.json"))
        tagger = Tagger.load(folder / READER) if (folder / READER).is_dir() else None
        method = kind.build(backbone, options, context_of(encoder, heads))
        tensors = _read_tensors(folder / "model.safetensors")
        tensors |= {
            _BACKBONE + key: value
            for key, value in backbone.state_dict().items()
            if key.startswith(backbone.own_weights)
        }
        if "tower" in config:
            tower_source = str(config["tower"]["weights"])
            tensors |= _named_tower(folder, config["tower"], preprocessing)
        for name, module in (("method", method), ("heads", heads)):
            if module is not None:
                prefix = f"{name}."
                own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                load_strictly(module, own)
        method.backbone.freeze_tower()
        card = _read_text(folder / "README.md")
        notes = config["notes"]
        return cls(method, options, encoder, preprocessing, heads, card, notes, tower_source, tagger).eval()


def new_model(
    backbone: Encoder,
    tokenizer: TextTokenizer,
    preprocessing: Preprocessing,
    heads: AttributeHeads | None,
    max_text_length: int,
    notes: Mapping[str, Any],
) -> ComposedModel:
    """Return a model of a pretrained encoder with the method that :func:`untrained_method` names.

    ``heads`` are attribute heads, if there are any. ``max_text_length`` is in tokens. ``notes`` say how the
    encoder was trained.
    """
    kind = method_named(untrained_method(backbone))
    options = kind.options_type()
    encoder = TextEncoder(tokenizer, (), max_text_length)
    method = kind.build(backbone, options, MethodContext())
    return ComposedModel(method, options, encoder, preprocessing, heads, notes=notes)


def untrained_method(backbone: Encoder) -> str:
    """Return the name of the method with which an encoder composes before it is trained.

    It adds image and text. For an encoder that cannot embed each alone, it reads both together; for one
    without texts, it uses only the image.
    """
    names = ("image_plus_text", "read_together", "token_mean")
    return next(name for name in names if method_named(name).requires <= backbone.provides)


def context_of(encoder: TextEncoder, heads: AttributeHeads | None) -> MethodContext:
    """Return what a method is built with besides the encoder: lexicons, heads and columns of attributes."""
    columns = {}
    for column in heads.config.columns if heads is not None else ():
        for place, vocabulary in enumerate(encoder.vocabularies):
            if vocabulary.column(column) is not None:
                columns[column] = place
    placeholder = encoder.tokenizer.placeholder
    return MethodContext(encoder.lexicon_ids(), columns, heads, encoder.vocabularies, placeholder, encoder)


def _format_of(backbone: Encoder, names_tower: bool) -> int:
    if backbone.kind != BLIP2:
        return FORMAT
    return NAMED_TOWER_FORMAT if names_tower else WHOLE_FORMAT


def _read_encoder(folder: Path, config: Mapping[str, Any]) -> Encoder:
    """Return the encoder that ``config`` (of ``config.json``) describes.

    Its weights that are stored in ``model.safetensors`` are still random. Raises :class:`DataError` if
    ``config`` is damaged.
    """
    try:
        said = dict(config.get("encoder", {"kind": BLIP2}))
        kind = encoder_named(said.pop("kind"))
        said.pop("non_commercial", None)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder}/config.json names no kind of encoder: the file is damaged, copy it again"
        ) from error
    settings = parse_settings(config["backbone"], kind.config_type, f"{folder}/config.json, backbone")
    backbone = kind.read(settings, folder)
    backbone.origin = parse_settings(said, Origin, f"{folder}/config.json, encoder")
    return backbone


def is_model_folder(place: Path) -> bool:
    """Return whether ``place`` is a model folder that dqecir wrote."""
    try:
        return "method" in json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _named_tower(folder: Path, named: Mapping[str, str], preprocessing: Preprocessing) -> dict[str, Tensor]:
    """Read the weights of the tower that ``named`` in the folder's ``config.json`` refers to, by their names.

    Its fingerprint, which also covers ``preprocessing``, must be the one in ``named``. Raises
    :class:`CheckpointError` if it is not, or if the weights are missing, and :class:`DataError` if ``named``
    is incomplete.
    """
    try:
        weights, fingerprint = named["weights"], named["fingerprint"]
        place, _ = located(weights)
        if is_model_folder(place):
            whole = _read_tensors(place / "model.safetensors")
            tower = {k.removeprefix(_TOWER): v for k, v in whole.items() if k.startswith(_TOWER)}
        else:
            tower = {k.removeprefix("tower."): v for k, v in tower_state(place).items()}
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}/config.json names no tower: the file is damaged, copy it again") from error
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} keeps its tower in {weights}, which cannot be read ({error}): put it back, or write "
            f"its new place under tower.weights in {folder}/config.json"
        ) from error
    if tower_fingerprint(tower, preprocessing) != fingerprint:
        raise CheckpointError(
            f"{weights} contains another tower than the one that {folder} was trained with: name the right "
            f"one under tower.weights in {folder}/config.json"
        )
    return {_TOWER + key: value for key, value in tower.items()}


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "composer" in config:
            raise DataError(
                f"{folder} contains only the composer of {config['composer']}, not a whole model: open it "
                "with dqecir.model.conversion.load_composer"
            )
        version, reader = config["format"], config.get("reader_version", 1)
        needed = ("method", "options", "backbone", "heads", "vocabularies", "max_text_length", "notes")
        missing = [key for key in needed if key not in config]
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a model folder, because it has no config.json: name a folder that dqecir wrote"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}/config.json is not that of a dqecir model: name a folder that dqecir wrote"
        ) from error
    if version > FORMAT:
        raise DataError(
            f"{folder} was written by a newer dqecir (format {version}): upgrade dqecir to read it"
        )
    # An older reader would read texts differently from the reader that the model was trained with.
    if reader > READER_VERSION:
        raise DataError(
            f"{folder} was written by a dqecir with a newer reader of texts (version {reader}, and this one "
            f"is {READER_VERSION}): upgrade dqecir to read it"
        )
    if missing:
        raise DataError(
            f"{folder}/config.json lacks {', '.join(missing)}: the file is damaged, copy it again"
        )
    return dict(config)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors directly to a file, because BLIP-2's towers are too large for a second copy in memory.

    Raises :class:`CheckpointError` if the file cannot be written.
    """
    seen: set[int] = set()
    apart = {}
    for key, value in tensors.items():
        whole = value.contiguous()
        # safetensors refuses tensors that share memory.
        shared = whole.untyped_storage().data_ptr() in seen
        apart[key] = whole.clone() if shared else whole
        seen.add(whole.untyped_storage().data_ptr())
    try:
        save_file(apart, path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be written ({error}): free some space") from None
    with path.open("rb+") as written:
        os.fsync(written.fileno())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy it again") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the model folder is incomplete, copy it again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy it again") from error


def _read_vocabulary(path: Path) -> Vocabulary:
    _read_text(path)  # Reports a file that is missing as one of an incomplete model folder.
    return load_vocabulary(path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the model folder is incomplete, copy it again") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy it again") from error
