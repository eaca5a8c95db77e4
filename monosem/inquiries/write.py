"""The folder of a report: summary.md, a figure for each question, answers.csv and index.html."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monosem.core.files import write_text
from monosem.core.stage import title
from monosem.core.store import Store
from monosem.evaluation.experiment import Experiment
from monosem.inquiries.load import Inquiry
from monosem.questions import answers
from monosem.questions.answers import Answer
from monosem.reports.page import write_page
from monosem.results.rows import place_text
from monosem.running.run_folder import describe_experiment
from monosem.running.sweep_folder import FinishedCells, finished_cells
from monosem.specs.study import Study

SUMMARY, CONFIG, NUMBERS = "summary.md", "report.gin", "answers.csv"


def write(inquiry: Inquiry, folder: Path, store: Store) -> list[Answer]:
    """Leave the report of what is finished; what its numbers say."""
    from monosem.figures.answers import draw_answers  # matplotlib takes long to import

    finished = {name: finished_cells(one, store) for name, one in inquiry.studies.items()}
    rows = {name: cells.all_rows for name, cells in finished.items()}
    told = answers.answer(inquiry.report, rows)
    for path in folder.glob(answers.figure_name("*")):
        path.unlink()
    for position, each in enumerate(told, 1):
        if each.judged:
            draw_answers(each.judged, folder / answers.figure_name(position))
    methods = "\n\n".join(
        part
        for name, one in inquiry.studies.items()
        for part in _methods(name, one, finished[name], store)
    )
    write_text(folder / SUMMARY, answers.markdown(inquiry.report, told, methods))
    write_text(folder / NUMBERS, answers.csv_text(told))
    write_text(folder / CONFIG, inquiry.config)
    write_page(folder)
    return told


def _methods(name: str, study: Study, finished: FinishedCells, store: Store) -> Iterator[str]:
    """How the numbers of a sweep were made, from its specs."""
    first = finished.first_of_each_spec()
    yield f"### The sweep {name}"
    axes = study.sweep.grid or ()
    grid = "; ".join(f"{' and '.join(axis.names)}: {axis.values}" for axis in axes)
    yield (
        f"{len(finished.cells)} of {len(study.cells)} cells are finished, of the experiments "
        f"{', '.join(cell.experiment.name for cell in first)}. Grid: {grid or 'none'}."
    )
    for cell in first:
        yield f"#### {cell.experiment.name}"
        yield _curves(cell.experiment) + "\n" + describe_experiment(cell.experiment, store)


def _curves(experiment: Experiment) -> str:
    lines = []
    for curve in experiment.curves:
        points = ", ".join(dict.fromkeys(place_text(*point) for point in curve.points))
        lines.append(f"- {curve.name}: {title(curve)} at {points}")
    return "\n".join(lines)
