"""Named, fixed protocols: which gallery, text of questions and metrics a benchmark is measured with.

Publications measure FashionIQ and CIRCO with different protocols, so their figures cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dqecir.data.annotations import Question, Questions
from dqecir.data.captions import blip_clean, join_fashioniq
from dqecir.data.circo import read_circo, read_circo_questions
from dqecir.data.cirr import read_cirr, read_cirr_questions
from dqecir.data.fashion200k import read_fashion200k
from dqecir.data.fashioniq import Gallery, read_fashioniq, read_fashioniq_questions
from dqecir.data.genecis import read_genecis
from dqecir.data.icir import read_icir
from dqecir.data.lasco import read_lasco
from dqecir.data.multiturn_fashioniq import read_multiturn_fashioniq
from dqecir.data.shoes import read_shoes
from dqecir.data.triplets import Benchmark, Triplet, Turn
from dqecir.errors import DataError
from dqecir.evaluation.metrics import (
    KEPT,
    RetrievalResults,
    any_recall,
    precision_at,
    recall,
    subset_recall,
    three_means,
    trapezoid_precision,
)
from dqecir.settings import nearest

QueryText = Literal["clean_and", "raw_and", "covr", "composeae", "raw", "qure_circo"]
DataSet = Literal[
    "fashioniq",
    "cirr",
    "circo",
    "genecis",
    "i-cir",
    "lasco",
    "shoes",
    "fashion200k",
    "multiturn-fashioniq",
]


def _composeae(question: Triplet | Question | Turn) -> str:
    if not isinstance(question, Triplet) or not question.aspects:
        raise DataError("ComposeAE's wording begins with the category: read FashionIQ with the joint gallery")
    return f"{question.aspects[0]} {' and it '.join(question.captions)}".lower()


WORDINGS: Mapping[QueryText, Callable[[Triplet | Question | Turn], str]] = {
    "clean_and": lambda question: join_fashioniq(question.captions),
    "raw_and": lambda question: " and ".join(question.captions),
    "covr": lambda question: blip_clean(" and ".join(question.captions), 30),
    "composeae": _composeae,
    "raw": lambda question: question.captions[0],
    "qure_circo": lambda question: f"a photo of $ that {question.captions[0]}",
}
"""Name -> function that joins the captions of a question to one text."""


@dataclass(frozen=True)
class Protocol:
    """A protocol: everything that decides the measured numbers, except for the model."""

    name: str
    data: DataSet
    mask_reference: bool
    """Whether the reference is left out of the ranking."""
    wording: QueryText
    metrics: tuple[str, ...]
    """``R@k`` of the target, ``R_any@k`` of any right answer, ``R_sub@k`` of the target within its subset,
    ``mAP@k`` over all right answers, and ``mAP`` over the whole ranking by the trapezoid rule (i-CIR)."""
    headline: tuple[str, ...]
    """The metrics whose mean is the headline number."""
    source: str
    """Publications that use this protocol."""
    gallery: Gallery = "original"
    """Which gallery of FashionIQ is used; other data sets have only one."""
    both_orders: bool = False
    """Whether every question is asked twice, with both orders of its captions."""
    by_aspect: tuple[str, ...] = ()
    """Metrics that are also reported for each aspect, such as CIRCO's: over the questions that have it."""
    means: bool = False
    """Whether the arithmetic, harmonic and geometric mean of all metrics are reported."""
    over_questions: bool = False
    """Whether a metric is the mean over all questions, and not the mean over the categories' means. Then
    ``mmAP`` is the mean over categories of the mean AP, and ``minmAP`` that of the smallest AP (i-CIR)."""

    @property
    def headline_name(self) -> str:
        """Key of the headline in :meth:`summarise`, such as ``(R@10 + R@50)/2`` for two metrics."""
        if len(self.headline) == 1:
            return self.headline[0]
        return f"({' + '.join(self.headline)})/{len(self.headline)}"

    @property
    def kept(self) -> int:
        """Number of best candidates of each query that the metrics need; 0 if only recalls are measured."""
        return KEPT if any(name.startswith("mAP@") for name in self.metrics) else 0

    def benchmark(
        self, folder: Path, split: str = "val", *, images: Path | None = None, check_images: bool = True
    ) -> Benchmark:
        """Read a split of the data set in ``folder`` for this protocol.

        Arguments and errors are those of the data set's reader. ``images`` is the folder of the pictures, if
        it is another one; ``check_images``: whether they must exist.
        """
        return _READERS[self.data](self, folder, split, images=images, check_images=check_images)

    def questions(
        self, folder: Path, split: str, *, images: Path | None = None, check_images: bool = True
    ) -> Questions:
        """Read a split whose answers are not published, for a submission with this protocol's masking.

        ``images`` and ``check_images`` as in :meth:`benchmark`. Raises :class:`DataError` if the data set
        publishes all answers, and as its reader.
        """
        if self.data not in _QUESTION_READERS:
            raise DataError(
                f"{self.data} publishes all answers, so there is nothing to submit: measure it without "
                "--submit"
            )
        read = _QUESTION_READERS[self.data](folder, split, images=images, check_images=check_images)
        return replace(read, mask_reference=self.mask_reference)

    def text(self, question: Triplet | Question | Turn) -> str:
        """Return the text of a question, or of an earlier turn of it, under this protocol."""
        return WORDINGS[self.wording](question)

    def summarise(self, results: RetrievalResults) -> dict[str, float]:
        """Return the protocol's metrics in percent under their published names, with the headline last.

        With several categories, each metric is the unweighted mean over categories, and ``<category>/R@10``
        and so on are those of each. ``<aspect>/mAP@10`` is the mean over the questions of an aspect. Raises
        :class:`DataError` for results of another data set, or if the reference was ranked although the
        protocol leaves it out, or the reverse.
        """
        benchmark = results.benchmark
        if (benchmark.name, benchmark.mask_reference) != (self.data, self.mask_reference):
            raise DataError(
                f"the protocol {self.name} needs results of {self.data} "
                f"{'without' if self.mask_reference else 'with'} the reference in its ranking: read "
                "the data with the protocol itself"
            )
        values = {name: 100 * _values(results, name) for name in self.metrics}
        categories = np.array([triplet.category for triplet in benchmark.triplets])
        names = [name for name in benchmark.galleries if (categories == name).any()]
        table: dict[str, float] = {}
        if self.over_questions:
            table |= {key: float(each.mean()) for key, each in values.items()}
            own = [values["mAP"][categories == name] for name in names]
            table |= {"mmAP": float(np.mean([each.mean() for each in own]))}
            table |= {"minmAP": float(np.mean([each.min() for each in own]))}
        elif len(names) > 1:
            for category in names:
                rows = categories == category
                table |= {f"{category}/{key}": float(each[rows].mean()) for key, each in values.items()}
            table |= {
                key: float(np.mean([table[f"{category}/{key}"] for category in names])) for key in values
            }
        else:
            table |= {key: float(each.mean()) for key, each in values.items()}
        aspects = dict.fromkeys(aspect for triplet in benchmark.triplets for aspect in triplet.aspects)
        for aspect in aspects:
            rows = np.array([aspect in triplet.aspects for triplet in benchmark.triplets])
            table |= {f"{aspect}/{key}": float(values[key][rows].mean()) for key in self.by_aspect}
        if self.means:
            table |= three_means([table[key] for key in self.metrics])
        head = float(np.mean([table[key] for key in self.headline]))
        table.pop(self.headline_name, None)
        return {**table, self.headline_name: head}


def _values(results: RetrievalResults, metric: str) -> NDArray[np.float64]:
    """Return a metric of each query [Q] by its name, from 0 to 1."""
    if metric == "mAP":
        return np.array([trapezoid_precision(ranks) for ranks in results.right_ranks])
    kind, _, k = metric.partition("@")
    return {"R": recall, "R_any": any_recall, "R_sub": subset_recall, "mAP": precision_at}[kind](
        results, int(k)
    )


def _read_fashioniq(protocol: Protocol, folder: Path, split: str, **places: Any) -> Benchmark:
    return read_fashioniq(
        folder,
        split,
        gallery=protocol.gallery,
        mask_reference=protocol.mask_reference,
        both_orders=protocol.both_orders,
        **places,
    )


def _read_cirr(protocol: Protocol, folder: Path, split: str, **places: Any) -> Benchmark:
    return read_cirr(folder, split, mask_reference=protocol.mask_reference, **places)


def _read_circo(protocol: Protocol, folder: Path, split: str, **places: Any) -> Benchmark:
    return read_circo(folder, split, mask_reference=protocol.mask_reference, **places)


_READERS: Mapping[DataSet, Callable[..., Benchmark]] = {
    "fashioniq": _read_fashioniq,
    "cirr": _read_cirr,
    "circo": _read_circo,
    "genecis": lambda _, *where, **places: read_genecis(*where, **places),
    "i-cir": lambda _, *where, **places: read_icir(*where, **places),
    "lasco": lambda _, *where, **places: read_lasco(*where, **places),
    "shoes": lambda _, *where, **places: read_shoes(*where, **places),
    "fashion200k": lambda _, *where, **places: read_fashion200k(*where, **places),
    "multiturn-fashioniq": lambda _, *where, **places: read_multiturn_fashioniq(*where, **places),
}
"""Data set -> function that reads a split of a folder for a protocol."""
_QUESTION_READERS: Mapping[DataSet, Callable[..., Questions]] = {
    "fashioniq": read_fashioniq_questions,
    "cirr": read_cirr_questions,
    "circo": read_circo_questions,
}

_FASHIONIQ = ("R@1", "R@5", "R@10", "R@50")
_AVERAGE = ("R@10", "R@50")
_CIRR = ("R@1", "R@5", "R@10", "R@50", "R_sub@1", "R_sub@2", "R_sub@3")
_CIRCO = tuple(f"{kind}@{k}" for kind in ("mAP", "R") for k in (5, 10, 25, 50))
_SEMANTIC = ("mAP@10",)

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "fashioniq",
            "fashioniq",
            False,
            "clean_and",
            _FASHIONIQ,
            _AVERAGE,
            "CLIP4Cir, Bi-BLIP4CIR (arXiv 2303.16604), SPRC (2310.05473), QuRe (2507.12416)",
        ),
        Protocol(
            "fashioniq-val",
            "fashioniq",
            True,
            "raw_and",
            _FASHIONIQ,
            _AVERAGE,
            "MGUR (arXiv 2211.07394); the main table of CoSMo (CVPR 2021)",
            gallery="val_split",
            both_orders=True,
        ),
        Protocol(
            "fashioniq-cosmo",
            "fashioniq",
            True,
            "raw_and",
            _FASHIONIQ,
            _AVERAGE,
            "CoSMo (CVPR 2021), as its code has it",
            both_orders=True,
        ),
        Protocol(
            "fashioniq-covr",
            "fashioniq",
            True,
            "covr",
            _FASHIONIQ,
            _AVERAGE,
            "CoVR and CoVR-2 (arXiv 2308.14746)",
        ),
        Protocol(
            "fashioniq-joint",
            "fashioniq",
            False,
            "composeae",
            _FASHIONIQ,
            _AVERAGE,
            "ComposeAE (arXiv 2006.11149)",
            gallery="joint",
            by_aspect=_FASHIONIQ,
        ),
        Protocol(
            "cirr",
            "cirr",
            True,
            "raw",
            _CIRR,
            ("R@5", "R_sub@1"),
            "CIRR (arXiv 2108.04024) and every method on it",
            means=True,
        ),
        Protocol(
            "circo",
            "circo",
            False,
            "raw",
            _CIRCO,
            _SEMANTIC,
            "CIRCO, SEARLE (arXiv 2303.15247), LinCIR (2312.01998)",
            by_aspect=_SEMANTIC,
        ),
        Protocol(
            "circo-qure",
            "circo",
            False,
            "qure_circo",
            _CIRCO,
            _SEMANTIC,
            "QuRe (arXiv 2507.12416), with a $ in every text",
            by_aspect=_SEMANTIC,
        ),
        Protocol(
            "circo-covr",
            "circo",
            True,
            "raw",
            _CIRCO,
            _SEMANTIC,
            "CoVR and CoVR-2 (arXiv 2308.14746)",
            by_aspect=_SEMANTIC,
        ),
        Protocol(
            "genecis",
            "genecis",
            False,
            "raw",
            ("R_sub@1", "R_sub@2", "R_sub@3"),
            ("R_sub@1",),
            "GeneCIS (arXiv 2306.07969), as its code has it: R@k within each question's gallery is R_sub@k",
        ),
        Protocol(
            "i-cir",
            "i-cir",
            False,
            "raw",
            ("mAP",),
            ("mAP",),
            "i-CIR (arXiv 2510.25387), as its code has it",
            over_questions=True,
        ),
        Protocol(
            "lasco",
            "lasco",
            False,
            "raw",
            ("R@1", "R@5", "R@10", "R@50", "R@100"),
            ("R@10",),
            "others' evaluations of LaSCo (arXiv 2303.09429), whose own repository has no code",
        ),
        Protocol(
            "shoes",
            "shoes",
            False,
            "raw",
            ("R@1", "R@10", "R@50"),
            ("R@1", "R@10", "R@50"),
            "others' evaluations of Shoes (arXiv 1805.00145); some take the reference out of its ranking",
        ),
        Protocol(
            "fashion200k",
            "fashion200k",
            True,
            "raw",
            ("R_any@1", "R_any@5", "R_any@10", "R_any@50", "R_any@100"),
            ("R_any@1", "R_any@10", "R_any@50"),
            "TIRG (arXiv 1812.07119), as its code has it: R@k of any picture with the target's description",
        ),
        Protocol(
            "multiturn-fashioniq",
            "multiturn-fashioniq",
            False,
            "raw_and",
            ("R@1", "R@5", "R@8", "R@10", "R@50"),
            ("R@5", "R@8"),
            "multi-turn FashionIQ (arXiv 2106.04128), whose code draws the order of a turn's captions",
        ),
    )
}
"""Name -> protocol."""


def protocol_named(name: str) -> Protocol:
    """Return the protocol ``name``; raises :class:`DataError` that suggests a similar name."""
    if name not in PROTOCOLS:
        raise DataError(f"there is no protocol {name!r}{nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
