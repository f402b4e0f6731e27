"""Helpers for tests of methods: a batch of a drawn catalogue, and gradients by published names."""

import re

import torch

from dqecir.methods.method import TrainingBatch
from dqecir.questions.composing import catalogue_benchmark
from dqecir.training.data import TrainingData


class RandomStore:
    """A token store that returns the same random numbers for an image at every call."""

    def __init__(self, images, tokens=16, width=16):
        self.tokens = torch.randn(images, tokens, width, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.tokens)

    def gather(self, ids, views=None):
        return self.tokens[ids]


def a_batch(model, garments, size=6, **tokens) -> TrainingBatch:
    """Return the first triplets of a catalogue as a batch for ``model``'s method, all in-batch.

    ``tokens``: shape of the image tokens, as :class:`RandomStore` takes it.
    """
    benchmark = catalogue_benchmark(garments, "train", seed=0, count=40)
    store = RandomStore(len(benchmark.image_ids), **tokens)
    data = TrainingData.of(benchmark, store, model)
    queries = torch.arange(size)
    candidates = data.targets[queries].unique()
    return TrainingBatch(
        reference=store.gather(data.references[queries]),
        text=data.texts[queries],
        candidates=store.gather(candidates),
        targets=torch.searchsorted(candidates, data.targets[queries]),
        negatives=torch.zeros(size, 0, dtype=torch.int64),
        right=data.right_answers(queries, candidates),
        attribute_values=data.attribute_values[candidates],
        reverse_text=None if data.reverse_texts is None else data.reverse_texts[queries],
        asked=data.asked[queries],
        progress=0.5,
    )


def trained_names(method) -> list[str]:
    """Return parameters with a gradient that is not zero everywhere after a backward pass."""
    return [
        name
        for name, parameter in method.named_parameters()
        if parameter.grad is not None and bool((parameter.grad != 0).any())
    ]


def renamed(key, renames) -> str:
    """Return the name in dqecir of a published key."""
    for pattern, replacement in renames:
        new, count = re.subn(pattern, replacement, key)
        if count:
            return new
    return key


def assert_gradients(module, published, renames, scale=1.0):
    """Check that every published gradient equals ours to 1e-3 of its largest entry; ``scale`` times ours."""
    assert published
    own = dict(module.named_parameters())
    for key, wanted in published.items():
        parameter = own[renamed(key, renames)]
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad * scale
        if wanted.shape != found.shape:  # entries that the published code keeps and never uses
            assert not wanted[len(found) :].any()
            wanted = wanted[: len(found)]
        error = (found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)
        assert error < 1e-3, f"{key}: {float(error):.2e}"
