"""What files describe: a report with all its sweeps, or else what `specs` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from monosem.core.fields import FieldError
from monosem.evaluation.experiment import Experiment
from monosem.questions.question import Report
from monosem.specs import gin_state, study
from monosem.specs.errors import SpecError
from monosem.specs.gin_reader import GinReader
from monosem.specs.load import Spec, build
from monosem.specs.study import Study


class Inquiry(NamedTuple):
    """A report with its sweeps.

    studies: by the name of the sweep.
    config: all that the file and flags say of the report, as one Gin file.
    """

    report: Report
    studies: dict[str, Study]
    config: str

    @property
    def name(self) -> str:
        return self.report.name

    @property
    def experiments(self) -> dict[str, Experiment]:
        """By the names of the sweep and the cell."""
        return {
            f"{name}/{cell}": experiment
            for name, one in self.studies.items()
            for cell, experiment in one.experiments.items()
        }


def read(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    grids: Sequence[str] = (),
    seeds: int | None = None,
) -> Spec | Study | Inquiry:
    """The report that files and flags describe, or else the sweep or the experiment.

    Bindings that the report does not read itself are laid over each of its sweeps.
    """
    reader = study.reader_of(files, ())
    if not reader.bindings.have(Report):
        reader.read((), bindings)
        return study.described_by(reader, files, bindings, grids, seeds)
    if grids or seeds is not None:
        flag = "--grid" if grids else "--seeds"
        raise SpecError(f"{flag} does not go with a report, whose sweeps have their own grids")
    return _inquiry(reader, bindings)


def _inquiry(reader: GinReader, bindings: Sequence[str]) -> Inquiry:
    """reader: has read the files and not the bindings, which are for the sweeps as well."""
    reader.bindings.share_from_here()
    reader.read((), bindings)
    reader.check_macros()
    report = build(Report, reader.bindings)
    unread = reader.bindings.drop_unread("the report")
    config = reader.bindings.resolved(reader.imports)
    for_sweeps = [text for text in bindings if _address(text) in unread]
    studies = _studies(report, for_sweeps)
    names = {name: _curves(one) for name, one in studies.items()}
    try:
        for question in report.questions:
            for asked in question.asked:
                asked.check(names)
    except FieldError as error:
        raise SpecError(reader.bindings.explain(error)) from None
    return Inquiry(report, studies, config)


def _address(binding: str) -> gin_state.Address:
    return gin_state.parse_address(binding.partition("=")[0].strip())


def _studies(report: Report, bindings: Sequence[str]) -> dict[str, Study]:
    studies: dict[str, Study] = {}
    for file in report.sweeps:
        one = study.read([file], bindings)
        if not isinstance(one, Study):
            raise SpecError(f"Report.sweeps {file} describes an experiment; it must be a sweep")
        if one.name in studies:
            raise SpecError(f"Report.sweeps has two sweeps of the name {one.name}, one is {file}")
        studies[one.name] = one
    return studies


def _curves(one: Study) -> Mapping[str, Sequence[str]]:
    """By experiment, the names of its curves."""
    return {
        experiment.name: [curve.name for curve in experiment.curves]
        for experiment in one.experiments.values()
    }
