"""Reproduce FashionIQ, CIRR and CIRCO: check, train, measure under a protocol, compare, write submissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dqecir.evaluation.metrics import RetrievalResults
from dqecir.evaluation.protocols import Protocol
from dqecir.evaluation.runs import results_of, submit_stored, wording_of
from dqecir.evaluation.submission import validate
from dqecir.evaluation.table import baselines
from dqecir.experiments.examples import answer_of, drawn_questions
from dqecir.experiments.reproduce.material import (
    MEASURED,
    Material,
    in_words,
    kind_in,
    read_material,
    start_of,
)
from dqecir.experiments.reproduce.measuring import MeasuredRow, conditions_of, tokens_of
from dqecir.experiments.reproduce.preference_run import reproduce_preferences
from dqecir.experiments.reproduce.published_rows import PublishedRow, compare, published_rows
from dqecir.experiments.reproduce.reproduction_report import Report
from dqecir.experiments.reproduce.request import Request, Settings, first_of, models_of
from dqecir.experiments.reproduce.train_stage import TrainingCourse, course_of, draw_course, train
from dqecir.io.contact_sheets import contact_sheet
from dqecir.methods.method import method_named
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import read_model
from dqecir.training.data import epoch_order
from dqecir.training.processes import processes

QUESTIONS, CANDIDATES, SEED = 8, 6, 0
"""Number of questions, number of results and seed of the sheet of example results."""

NOT_RECORDED = "not known: the run is no reproduction's"


def reproduce(request: Request) -> Report | None:
    """Run the experiment of a data set, and write its report to ``request.out``.

    Only the main process returns a report, others None. Raises :class:`DataError` if data, settings or runs
    cannot be used, before anything is computed.
    """
    judged = request.data_set.name == "hp-fashioniq"
    return reproduce_preferences(request) if judged else _reproduce_retrieval(request)


def _reproduce_retrieval(request: Request) -> Report | None:
    data_set, protocol = request.data_set, request.chosen_protocol()
    recipe = request.chosen_recipe() if request.run is None else None
    run = request.run or request.trained_here
    kind = method_named(recipe.method) if recipe is not None else kind_in(first_of(run))
    published = published_rows()
    material = read_material(request, protocol, recipe)
    start = start_of(request.weights, kind)
    settings = Settings(
        data=data_set.name,
        protocol=protocol.name,
        weights=start.fingerprint,
        recipe=recipe,
        run=None if request.run is None else str(request.run.resolve()),
        measured=material.measured.checksum,
        training=None if material.training is None else material.training.checksum,
    )
    settings.keep(request.out)
    course = None
    if recipe is not None and material.training is not None:
        train(request, recipe, protocol, start, (material.training, material.measured))
        steps = len(epoch_order([len(material.training.triplets)], recipe.training.batch_size, 0, 0))
        course = course_of(run, protocol.headline_name, steps)
    if not processes().is_main_process:
        return None
    report = _Measurement(request, protocol, material, course).report(published)
    report.write(request.out)
    return report


@dataclass(frozen=True)
class _Measurement:
    """The steps after training; everything they need is read from files."""

    request: Request
    protocol: Protocol
    material: Material
    course: TrainingCourse | None

    def report(self, published: Sequence[PublishedRow]) -> Report:
        """Measure the untrained weights and the run, compare, write submissions and draw figures."""
        request, protocol = self.request, self.protocol
        run = request.run or request.trained_here
        made_of = Settings.beside(run)
        start = start_of(request.weights, kind_in(first_of(run)))
        rows = [
            self.row(f"untrained weights, {name.replace('_', ' ')}", "not trained", one, self.results(one))
            for name, one in baselines(start).items()
        ]
        trained: list[tuple[ComposedModel, RetrievalResults]] = []
        for name, folder in models_of(run).items():
            model = read_model(folder)
            trained.append((model, self.results(model)))
            title = f"{model.method.name}, {name} epoch"
            rows.append(self.row(title, self.chosen(name, made_of), *trained[-1]))
        # Compare, draw and submit the best epoch, if the run has one.
        model, results = trained[0]
        row = rows[-len(trained)]
        notes = list(self.material.notes)
        if made_of is not None and made_of.data == request.data:
            notes.append(
                f"The best epoch is the best on {MEASURED}, the split that it is measured on, as the "
                "published codes have it; the last epoch is free of that choice."
            )
        return Report(
            title=f"{request.data}: {model.method.name} under the protocol {protocol.name}",
            facts={
                "weights": f"{request.weights} ({start.fingerprint})",
                "pictures": in_words(model.preprocessing),
                "trained on": NOT_RECORDED if made_of is None else made_of.data,
                "recipe": NOT_RECORDED if made_of is None else made_of.in_short,
                "run": f"{run} ({model.fingerprint})",
                "protocol": f"{protocol.name}, as {protocol.source}",
                "headline": protocol.headline_name,
            },
            inventories=self.material.inventories,
            rows=rows,
            shown=_shown(protocol, row),
            notes=notes,
            comparisons=compare(
                published,
                row,
                model.method.name,
                request.data,
                trained_on=None if made_of is None else made_of.data,
                missing=self.material.lacking,
            ),
            submissions=self.submitted(model),
            pictures=self.drawn(model, results),
        )

    def results(self, model: ComposedModel) -> RetrievalResults:
        measured = self.material.measured
        return results_of(model, tokens_of(model, measured, self.request), measured, self.protocol)

    def row(self, name: str, chosen: str, model: ComposedModel, results: RetrievalResults) -> MeasuredRow:
        conditions = conditions_of(self.protocol, MEASURED, model.method)
        return MeasuredRow(name, chosen, conditions, self.protocol.summarise(results))

    def chosen(self, name: str, made_of: Settings | None) -> str:
        """Return a sentence about how the epoch of a model was chosen, and on which split.

        ``name`` is ``best`` or ``last``. ``made_of`` are the settings of the reproduction that trained it;
        None if unknown.
        """
        if made_of is None:
            return f"{name} of a run without further details"
        epoch, course = "", self.course
        if course is not None:
            number = course.best_epoch if name == "best" else course.last_epoch
            epoch = f"epoch {number:g} of {course.last_epoch:g}, "
        if name == "last":
            return f"{epoch}the last of a run on {made_of.data}, not chosen"
        return f"{epoch}chosen on {made_of.data} {MEASURED} by the headline of {made_of.protocol}"

    def submitted(self, model: ComposedModel) -> Mapping[str, Mapping[str, int]]:
        """Rank the test split, write its submission files, and check them.

        Returns file name -> numbers of its questions, answers and bytes, as :func:`validate`; empty without a
        test split.
        """
        questions = self.material.questions
        if questions is None:
            return {}
        store = tokens_of(model, questions, self.request)
        out = self.request.out / "submissions"
        return validate(submit_stored(model, store, questions, self.protocol, out), questions)

    def drawn(self, model: ComposedModel, results: RetrievalResults) -> dict[str, str]:
        """Draw results of random questions, and the course of the training; return caption -> file name."""
        store = tokens_of(model, results.benchmark, self.request)
        worded = wording_of(model.method, self.protocol)
        answers = [
            answer_of(model, store, results, number, CANDIDATES, worded)
            for number in drawn_questions(results.benchmark, QUESTIONS, SEED)
        ]
        title = f"{self.protocol.name}: questions drawn by seed {SEED}"
        contact_sheet(answers, self.request.out / "answers.png", title)
        pictures = {"answers to questions drawn by seed": "answers.png"}
        if self.course is not None:
            draw_course(self.course, self.protocol.headline_name, self.request.out / "curves.png")
            pictures["the course of the training"] = "curves.png"
        return pictures


def _shown(protocol: Protocol, row: MeasuredRow) -> list[str]:
    """Return the metrics for the table: the headline, those of the protocol, and the headline by category."""
    parts = [name for name in row.metrics if "/" in name and name.partition("/")[2] in protocol.headline]
    return list(dict.fromkeys((protocol.headline_name, *protocol.metrics, *parts)))
