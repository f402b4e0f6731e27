"""Make a benchmark from a catalogue: triplets with modification texts and all their right answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dqecir.data.catalogue import Catalogue
from dqecir.data.cells import UNKNOWN_CODE, values_of
from dqecir.data.triplets import Benchmark, Positions, Triplet
from dqecir.errors import DataError
from dqecir.language.vocabulary import Vocabulary, shipped_vocabularies
from dqecir.questions.answers import FIRST_CODE, CodedAttributes, right_answers
from dqecir.questions.pairs import Drawing, Pair, PairDraw, draw_pairs
from dqecir.questions.wording import CaptionGenerator, Change, Worded
from dqecir.settings import nearest

CHANGE_WEIGHTS = (0.18, 0.36, 0.46)
"""Relative frequency of questions with one, two and three changed attributes, if a gallery offers all
three."""
WHOLE_GALLERY = "all"
"""Category of every question if no column separates galleries."""


def catalogue_benchmark(
    catalogue: Catalogue,
    split: str,
    *,
    seed: int = 0,
    count: int | None = None,
    per_reference: int = 1,
    drawing: Drawing = "balanced",
    wording: Literal["train", "evaluation"] = "train",
    max_changes: int = 3,
    change_weights: Sequence[float] | None = None,
    gallery_column: str | None = None,
    within_sets: bool | None = None,
    vocabularies: Sequence[Vocabulary] | None = None,
    name: str | None = None,
) -> Benchmark:
    """Draw questions about one split of a catalogue, whose images are references, targets and gallery.

    ``count`` triplets are drawn; default: ``per_reference`` for each image (for each product if ``wording``
    is ``evaluation``). There are fewer if the split does not have so many different pairs. Reference and
    target of a pair differ in one to ``max_changes`` attributes, weighted by ``change_weights`` (default:
    ``CHANGE_WEIGHTS``); an attribute changes only within its vocabulary's group. Every value of
    ``gallery_column`` has its own gallery, and no pair changes it. With ``within_sets`` (default: if the
    catalogue has sets) both images of a pair are in one set, while the gallery stays whole (CIRR, arXiv
    2108.04024); the other images of the set become ``Triplet.subset``. ``wording="train"`` uses no held-out
    phrases; with ``"evaluation"`` every second question has only held-out phrases
    (``Triplet.unseen_wording``).

    The same ``seed`` gives the same questions. Rankings leave out the reference. ``vocabularies`` word the
    texts. Default: the shipped ones. Raises ``DataError`` if the split or the column does not exist, if a
    setting is wrong, or if no pair can be drawn.
    """
    if wording not in ("train", "evaluation"):
        raise DataError(f"the wording {wording!r} is unknown: choose 'train' or 'evaluation'")
    images = catalogue.split(split)
    comparable = catalogue.comparable
    attributes = {column: tuple(values[i] for i in images) for column, values in comparable.items()}
    coded = CodedAttributes.of(attributes)
    known = shipped_vocabularies() if vocabularies is None else vocabularies
    words = CaptionGenerator(known, values_of(comparable))
    galleries = _galleries(coded, len(images), gallery_column)
    draw = PairDraw(drawing, _weights(max_changes, change_weights))
    units = catalogue.count_products(images) if wording == "evaluation" else len(images)
    wanted = per_reference * units if count is None else count
    if wanted < 1:
        raise DataError(f"a benchmark of {wanted} questions is empty: ask for 1 or more")
    groups, rng = _groups(coded, words), np.random.default_rng(seed)
    sets = [catalogue.sets[i] for i in images] if catalogue.sets else []
    if within_sets and not sets:
        raise DataError(
            f"the catalogue {catalogue.folder} has no column named set, so there are no sets to draw pairs "
            "within: add the column, or leave out within_sets"
        )
    in_sets = bool(sets) if within_sets is None else within_sets
    pools = [_by_set(gallery, sets) if in_sets else [gallery] for gallery in galleries.values()]
    gallery_of = [number for number, parts in enumerate(pools) for _ in parts]
    products = _numbered([catalogue.products[i] for i in images]) if catalogue.has_views else None
    parted = [pool for parts in pools for pool in parts]
    drawn = draw_pairs(coded, parted, groups, draw, wanted, rng, products)
    pairs = [replace(pair, gallery=gallery_of[pair.gallery]) for pair in drawn]
    if not pairs:
        where = "set with two images" if in_sets else "two images"
        raise DataError(
            f"the split {split!r} of the catalogue {catalogue.folder} holds no {where} that differ in "
            f"1 to {len(draw.change_weights)} attributes: add images, or use fewer columns"
        )
    worded = _worded(pairs, coded, words, wording == "evaluation", random.Random(f"{seed} {split}"))
    return Benchmark(
        name=name or catalogue.folder.name,
        split=split,
        image_ids=tuple(catalogue.image_ids[i] for i in images),
        image_paths=tuple(catalogue.image_paths[i] for i in images),
        galleries=galleries,
        triplets=tuple(_answered(pairs, worded, coded, galleries, sets, products)),
        mask_reference=True,
        attributes=attributes,
        products=() if products is None else tuple(products.tolist()),
    )


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _weights(max_changes: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    if max_changes < 1:
        raise DataError(f"max_changes is {max_changes}: set it to 1 or more")
    if weights is None:
        weights = (*CHANGE_WEIGHTS, *[CHANGE_WEIGHTS[-1]] * (max_changes - len(CHANGE_WEIGHTS)))[:max_changes]
    if len(weights) != max_changes:
        raise DataError(
            f"{len(weights)} change weights do not fit max_changes = {max_changes}: give one for each count"
        )
    return tuple(weights)


def _galleries(coded: CodedAttributes, count: int, column: str | None) -> dict[str, Positions]:
    if column is None:
        return {WHOLE_GALLERY: np.arange(count, dtype=np.int64)}
    if column not in coded.columns:
        hint = nearest(column, coded.columns)
        raise DataError(f"the catalogue has no column {column!r} to split galleries by{hint}")
    place = coded.columns.index(column)
    galleries = {
        value: np.flatnonzero(coded.codes[place] == FIRST_CODE + i)
        for i, value in enumerate(coded.values[place])
    }
    if not galleries:
        raise DataError(
            f"the column {column!r} has no value in this split to split galleries by: choose another column"
        )
    return galleries


def _by_set(gallery: Positions, sets: Sequence[str]) -> list[Positions]:
    """Group the positions in ``gallery`` by set; images in no set are left out."""
    members: dict[str, list[int]] = {}
    for position in gallery.tolist():
        if sets[position]:
            members.setdefault(sets[position], []).append(position)
    return [np.array(positions, dtype=np.int64) for positions in members.values()]


def _groups(coded: CodedAttributes, words: CaptionGenerator) -> NDArray[np.int64]:
    """Return a number for each image: equal for images whose values are in the same groups of vocabularies.

    It is ``UNKNOWN_CODE`` (-1) if an attribute with groups is unknown.
    """
    images = coded.codes.shape[1]
    numbers, unknown = np.zeros(images, dtype=np.int64), np.zeros(images, dtype=bool)
    for place, column in enumerate(coded.columns):
        names = [group for value in coded.values[place] if (group := words.group(column, value)) is not None]
        if names:
            distinct = sorted(set(names))
            group_of_code = np.array([0, *(1 + distinct.index(name) for name in names), 0])
            numbers = numbers * (1 + len(distinct)) + group_of_code[coded.codes[place]]
            unknown |= coded.codes[place] == UNKNOWN_CODE
    return np.where(unknown, UNKNOWN_CODE, numbers)


def _worded(
    pairs: Sequence[Pair],
    coded: CodedAttributes,
    words: CaptionGenerator,
    evaluation: bool,
    rng: random.Random,
) -> list[Worded]:
    worded = []
    for number, pair in enumerate(pairs):
        changes = []
        for column in pair.changed:
            before, after = (
                coded.value(column, coded.codes[column, i]) for i in (pair.reference, pair.target)
            )
            changes.append(Change(coded.columns[column], before, after))
        reference = {
            name: coded.value(place, coded.codes[place, pair.reference])
            for place, name in enumerate(coded.columns)
        }
        held_out = evaluation and number % 2 == 1
        worded.append(words.describe(changes, rng, held_out, reference))
    return worded


def _answered(
    pairs: Sequence[Pair],
    worded: Sequence[Worded],
    coded: CodedAttributes,
    galleries: Mapping[str, Positions],
    sets: Sequence[str],
    products: NDArray[np.int64] | None,
) -> list[Triplet]:
    """Return the triplets of all pairs with their right answers, in the order of the pairs."""
    triplets: dict[int, Triplet] = {}
    for number, (category, gallery) in enumerate(galleries.items()):
        members = {sets[part[0]]: part.tolist() for part in _by_set(gallery, sets)} if sets else {}
        questions = [i for i, pair in enumerate(pairs) if pair.gallery == number]
        references = np.array([pairs[i].reference for i in questions], dtype=np.int64)
        answers = right_answers(coded, gallery, references, [worded[i].asked for i in questions])
        for i, (right, undecided) in zip(questions, answers, strict=True):
            if products is not None:
                right, undecided = _by_product(right, undecided, gallery, products, pairs[i].reference)
            near = members.get(sets[pairs[i].reference], []) if sets else []
            subset = [image for image in near if image != pairs[i].reference]
            triplets[i] = Triplet(
                reference=pairs[i].reference,
                target=pairs[i].target,
                captions=worded[i].captions,
                category=category,
                relevant=tuple(right.tolist()),
                ignored=tuple(undecided.tolist()),
                asked=worded[i].asked,
                subset=tuple(subset) if pairs[i].target in subset else (),
                unseen_wording=worded[i].unseen,
            )
    return [triplets[i] for i in range(len(pairs))]


def _by_product(
    right: Positions, undecided: Positions, gallery: Positions, products: NDArray[np.int64], reference: int
) -> tuple[Positions, Positions]:
    """Extend right and undecided images to all views in ``gallery`` of the same products; return both.

    All views of the reference's own product are wrong, except those that are in ``right`` themselves.
    """
    shown, own = products[gallery], products[reference]
    is_right = np.isin(shown, products[right]) & (shown != own)
    is_right |= np.isin(gallery, right)
    is_undecided = np.isin(shown, products[undecided]) & (shown != own) & ~is_right
    return gallery[is_right], gallery[is_undecided]
