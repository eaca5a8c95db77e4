"""From finished experiments to their table, their facts and the files of a run folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from monosem.core.fields import Part
from monosem.core.files import atomic_write, write_text
from monosem.core.stage import closure
from monosem.core.store import Store
from monosem.evaluation.curves import SeverityCurve
from monosem.evaluation.experiment import Experiment
from monosem.evaluation.gallery import draw_view, encoder, views
from monosem.models.features import Features
from monosem.models.pretrain import Pretrain
from monosem.models.representation import Representation
from monosem.models.training import Training
from monosem.results.correlation import CorrelationReport
from monosem.results.gallery_page import encoders_of, page
from monosem.results.rows import Row, Swept, table_text
from monosem.results.summary import tables
from monosem.results.table import Table

FILES = (
    "curves.png",
    "summary.md",
    "gallery.html",
    "gallery*.png",
    "histograms*.png",
    "space*.png",
)  # beside the texts of an experiment


def collect(experiment: Experiment, store: Store, swept: Swept = ()) -> list[Row]:
    """The table of an experiment whose stages have all run."""
    return [
        Row(
            experiment.name,
            stage.name,
            result.severity,
            result.repeat,
            result.metric,
            result.value,
            result.n,
            stage.axis,
            swept,
        )
        for stage in experiment.measurements
        for result in stage.results(store.get(stage))
    ]


def measures(experiment: Experiment, store: Store) -> str:
    """measures.csv: what was measured of every representation, dimension by dimension where it is of dimensions. Without a dimension, of
    all of it: then `dimensions` says over how many a mean is, and is empty for what is no mean."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["experiment", "representation", "measure", "dimension", "value", "dimensions", "images"]
    )
    for measure in experiment.measures:
        artifact, n = store.get(measure), len(measure.data.split("test").labels)
        place, single = (
            [experiment.name, chain(measure.encoder)],
            {name: value for name, value in artifact.items() if value.ndim == 0},
        )
        for name, value in single.items():
            valid = artifact.get(f"{name}/valid")
            writer.writerow(
                [*place, name, "", value.item(), "" if valid is None else int(valid.sum()), n]
            )
        for name in single:
            if (values := artifact.get(f"{name}/dimensions")) is not None:
                valid = artifact[f"{name}/valid"]
                writer.writerows(
                    [*place, name, d, values[d].item(), "", n]
                    for d in valid.nonzero().flatten().tolist()
                )
    return text.getvalue()


def facts(experiment: Experiment, store: Store) -> str:
    """What a reader of the numbers has to know, as a Markdown list: what was trained and probed, how, and what it took."""
    stages = closure(experiment.stages)
    lines = [
        f"probed: {chain(each)}"
        for each in dict.fromkeys(curve.encoder for curve in experiment.curves)
    ]
    lines += [
        f"probe: {probe}"
        for probe in dict.fromkeys(
            curve.probe for curve in experiment.curves if hasattr(curve, "probe")
        )
    ]
    for stage in stages:
        if isinstance(stage, Training):
            values = {field.name: getattr(stage, field.name) for field in fields(stage)}
            settings = [
                f"{name}: {value}"
                for name, value in values.items()
                if not isinstance(value, Representation)
            ]
            lines.append("\n  - ".join([type(stage).__name__, *settings]))
        if isinstance(stage, Pretrain):
            lines.append(f"online classifier: {online(stage)}")
        logged = store.history(stage)[-1:]
        if logged and "encoder_passes" in logged[0].scalars:
            split = f", {stage.split} split" if isinstance(stage, Features) else ""
            what = (
                f"curve {stage.name}"
                if isinstance(stage, SeverityCurve)
                else f"{chain(stage)}{split}"
            )
            lines.append(
                f"encoder passes for {what}: {logged[0].scalars['encoder_passes']:.0f} images"
            )
    made = [store.provenance(stage) for stage in stages]
    lines += dict.fromkeys(
        f"computed with torch {each['torch']} on {each['device']}, {each['threads']} threads"
        for each in made
    )
    return "\n".join(f"- {line}" for line in lines)


def online(stage: Pretrain) -> str:
    if stage.classifier is None:
        return "absent"
    return (
        "joint, so clean labels train the encoder too"
        if stage.classifier.joint
        else "detached, it only watches"
    )


def chain(part: Part) -> str:
    """A representation and what it stands on: Embedding of Pretrain."""
    above = getattr(part, "encoder", None)
    return (
        f"{type(part).__name__} of {chain(above)}"
        if isinstance(above, Part)
        else type(part).__name__
    )


def write(folder: Path, rows: Sequence[Row], summary: str, config: str | None = None) -> list[Path]:
    """curves.csv, the figures, whose paths come back, summary.md and, where there is one, config.gin."""
    if config is not None:
        write_text(folder / "config.gin", config)
    write_text(folder / "curves.csv", table_text(rows))
    figures = redraw(folder, Table(rows))
    write_text(folder / "summary.md", summary)
    return figures


def summary(rows: Sequence[Row], notes: str = "") -> str:
    table = Table(rows)
    return f"# {', '.join(map(table.say, table.lines))}\n\n{notes}\n\n{tables(table)}"


def redraw(folder: Path, table: Table) -> list[Path]:
    """curves.png, a panel for each curve; and where lines are compared, each curve as a figure of its own too."""
    from monosem.results.figures import draw_curves

    alone = list(table.axes) if any(row.swept for row in table.rows) else []
    figures = [(f"{curve}.png", [curve]) for curve in alone] + [("curves.png", None)]
    for name, curves in figures:
        with atomic_write(folder / name) as path:
            draw_curves(table, path, curves)
    return [folder / name for name, _ in figures]


def show(experiment: Experiment, store: Store, folder: Path) -> list[Path]:
    """gallery.html and, for every representation, gallery.png, histograms.png and space.png; the paths of these figures come back."""
    seen, figures = views(experiment, store, experiment.name), list[Path]()
    for view, name in zip(seen, experiment.probed, strict=True):
        figures += draw_view(view, experiment.gallery.rows, folder, f"-{name}" if name else "")
    write_text(
        folder / "gallery.html",
        page([encoder(view, experiment.gallery.dimensions) for view in seen]),
    )
    return figures


def page_of(experiments: Sequence[tuple[str, Experiment]], store: Store) -> str:
    """gallery.html of several finished experiments, each with a name for people."""
    return page(
        [
            encoder(view, each.gallery.dimensions)
            for name, each in experiments
            for view in views(each, store, name)
        ]
    )


def joined_page(folders: Sequence[Path]) -> str | None:
    """One gallery.html of those in some folders, to compare their representations side by side; None where one of them has none.
    ValueError, with its name, where one is damaged."""
    encoder_points = []
    for path in (folder / "gallery.html" for folder in folders):
        try:
            encoder_points += encoders_of(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: {error}") from None
    return page(encoder_points)


def written(folder: Path, texts: Mapping[str, str], others: Sequence[str]) -> bool:
    """Whether the folder already holds just these texts, and files of the other names, so that nothing has to be written again."""
    try:
        same = all((folder / name).read_text("utf-8") == text for name, text in texts.items())
    except (OSError, UnicodeDecodeError):
        return False
    return same and all(any(folder.glob(name)) for name in others)


# ------------------------------------------------------------------------------------------------ sweeps


def show_claim(correlation_report: CorrelationReport, measure: str, folder: Path) -> list[Path]:
    """claim.png, if there are encoders enough; its path comes back."""
    from monosem.results.figures import draw_claim

    if not correlation_report.clouds:
        return []
    with atomic_write(folder / "claim.png") as path:
        draw_claim(correlation_report.lines, correlation_report.clouds, measure, path)
    return [folder / "claim.png"]
