"""Fingerprints: short names of weights, and of everything else that decides what a model computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor

from dqecir.data.images import Preprocessing
from dqecir.language.reader_version import READER_VERSION
from dqecir.methods.attribute_heads import AttributeHeads, TextEncoder
from dqecir.methods.method import Method, MethodOptions

TARGET = "target:"
"""How a fingerprint of target embeddings begins."""


def tower_fingerprint(state: Mapping[str, Tensor], preprocessing: Preprocessing) -> str:
    """Name a tower's weights and the preprocessing: stored image tokens belong to exactly these."""
    return _digest(json.dumps(preprocessing.to_dict(), sort_keys=True), state)


def target_fingerprint(method: Method, tower: str) -> str:
    """Name everything that makes target embeddings, and nothing else: an index belongs to exactly this.

    ``tower`` is the tower's fingerprint. An index outlives versions of the package, so another way to
    compute this name would orphan every index.
    """
    made_by = {
        "tower": tower,
        "attention heads": method.backbone.untraced,
        "score rule": method.score_rule,
        "shape": method.target_shape,
        "values": list(method.target_values.items()),
    }
    return TARGET + _digest(json.dumps(made_by), method.target_state())


def model_fingerprint(
    method: Method,
    options: MethodOptions,
    heads: AttributeHeads | None,
    encoder: TextEncoder,
    target: str,
    reader: str,
) -> str:
    """Name everything that decides answers: also the composer, the text reader, vocabularies and options.

    ``target`` is the fingerprint of target embeddings, which covers the tower's weights; ``reader`` names the
    weights of the text reader.
    """
    made_by = {
        "target": target,
        "method": method.name,
        # Without defaults, so that an option that is new to the package renames no older model.
        "options": options.model_dump(mode="json", exclude_defaults=True),
        "heads": heads.config.model_dump(mode="json") if heads is not None else None,
        "reader": [READER_VERSION, reader],
        "vocabularies": [
            known.model_dump(mode="json", exclude_defaults=True) for known in encoder.vocabularies
        ],
        "word pieces": sorted(encoder.tokenizer.vocabulary().items()),
        "max text length": encoder.max_length,
    }
    state = dict(method.state_dict())
    if heads is not None:
        state |= heads.state_dict(prefix="heads.")
    behind = {name: value for name, value in state.items() if not name.startswith("backbone.tower.")}
    return _digest(json.dumps(made_by), behind)


def fingerprint_of_0_1_0(method: Method, tower: str) -> str:
    """Name all weights as version 0.1.0 did, which bound indexes by this name.

    It is needed as long as those indexes are to be opened.
    """
    return _digest(tower, method.state_dict())


def _digest(head: str, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(head.encode())
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
