"""From finished experiments to their table, their facts and the files of a run folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from monosem.claim import Answer
from monosem.curves import MONOSEMANTICITY, Row, Swept, Table, markdown, table_text, tables
from monosem.evaluation import Experiment, Series
from monosem.files import whole
from monosem.gallery import draw_view, encoder, views
from monosem.page import encoders_of, page
from monosem.probes import Features
from monosem.spec import Cell
from monosem.stage import Part, closure
from monosem.store import Store
from monosem.sweep import Goal
from monosem.training import Pretrain, Representation, Training

FILES = ("curves.png", "summary.md", "gallery.html", "gallery*.png", "histograms*.png", "space*.png")  # beside the texts of an experiment


def collect(experiment: Experiment, store: Store, swept: Swept = ()) -> list[Row]:
    """The table of an experiment whose stages have all run."""
    return [
        Row(experiment.name, stage.name, result.severity, result.repeat, result.metric, result.value, result.n, stage.axis, swept)
        for stage in experiment.measurements
        for result in stage.results(store.get(stage))
    ]


def measures(experiment: Experiment, store: Store) -> str:
    """measures.csv: what was measured of every representation, dimension by dimension where it is of dimensions. Without a dimension, of
    all of it: then `dimensions` says over how many a mean is, and is empty for what is no mean."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["experiment", "representation", "measure", "dimension", "value", "dimensions", "images"])
    for measure in experiment.measures:
        artifact, n = store.get(measure), len(measure.data.split("test").labels)
        place, single = [experiment.name, chain(measure.encoder)], {name: value for name, value in artifact.items() if value.ndim == 0}
        for name, value in single.items():
            said = artifact.get(f"{name}/said")
            writer.writerow([*place, name, "", value.item(), "" if said is None else int(said.sum()), n])
        for name in single:
            if (values := artifact.get(f"{name}/dimensions")) is not None:
                said = artifact[f"{name}/said"]
                writer.writerows([*place, name, d, values[d].item(), "", n] for d in said.nonzero().flatten().tolist())
    return text.getvalue()


def facts(experiment: Experiment, store: Store) -> str:
    """What a reader of the numbers has to know, as a Markdown list: what was trained and probed, how, and what it took."""
    stages = closure(experiment.stages)
    lines = [f"probed: {chain(each)}" for each in dict.fromkeys(curve.encoder for curve in experiment.curves)]
    lines += [f"probe: {probe}" for probe in dict.fromkeys(curve.probe for curve in experiment.curves if hasattr(curve, "probe"))]
    for stage in stages:
        if isinstance(stage, Training):
            values = {field.name: getattr(stage, field.name) for field in fields(stage)}
            settings = [f"{name}: {value}" for name, value in values.items() if not isinstance(value, Representation)]
            lines.append("\n  - ".join([type(stage).__name__, *settings]))
        if isinstance(stage, Pretrain):
            lines.append(f"online classifier: {online(stage)}")
        logged = store.history(stage)[-1:]
        if logged and "encoder_passes" in logged[0].scalars:
            split = f", {stage.split} split" if isinstance(stage, Features) else ""
            what = f"curve {stage.name}" if isinstance(stage, Series) else f"{chain(stage)}{split}"
            lines.append(f"encoder passes for {what}: {logged[0].scalars['encoder_passes']:.0f} images")
    made = [store.made(stage) for stage in stages]
    lines += dict.fromkeys(f"computed with torch {each['torch']} on {each['device']}, {each['threads']} threads" for each in made)
    return "\n".join(f"- {line}" for line in lines)


def online(stage: Pretrain) -> str:
    if stage.classifier is None:
        return "absent"
    return "joint, so clean labels train the encoder too" if stage.classifier.joint else "detached, it only watches"


def chain(part: Part) -> str:
    """A representation and what it stands on: Embedding of Pretrain."""
    above = getattr(part, "encoder", None)
    return f"{type(part).__name__} of {chain(above)}" if isinstance(above, Part) else type(part).__name__


def write(folder: Path, rows: Sequence[Row], summary: str, config: str | None = None) -> list[Path]:
    """curves.csv, the figures, whose paths come back, summary.md and, where there is one, config.gin."""
    if config is not None:
        put(folder / "config.gin", config)
    put(folder / "curves.csv", table_text(rows))
    figures = redraw(folder, Table(rows))
    put(folder / "summary.md", summary)
    return figures


def put(path: Path, text: str) -> None:
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def summary(rows: Sequence[Row], notes: str = "") -> str:
    table = Table(rows)
    return f"# {', '.join(map(table.say, table.lines))}\n\n{notes}\n\n{tables(table)}"


def redraw(folder: Path, table: Table) -> list[Path]:
    """curves.png, a panel for each curve; and where lines are compared, each curve as a figure of its own too."""
    from monosem.pictures import draw_curves  # matplotlib takes a second to import

    alone = list(table.axes) if any(row.swept for row in table.rows) else []
    figures = [(f"{curve}.png", [curve]) for curve in alone] + [("curves.png", None)]
    for name, curves in figures:
        with whole(folder / name) as path:
            draw_curves(table, path, curves)
    return [folder / name for name, _ in figures]


def show(experiment: Experiment, store: Store, folder: Path) -> list[Path]:
    """gallery.html and, for every representation, gallery.png, histograms.png and space.png; the paths of these figures come back."""
    seen, figures = views(experiment, store, experiment.name), list[Path]()
    for view, name in zip(seen, experiment.probed, strict=True):
        figures += draw_view(view, experiment.gallery.rows, folder, f"-{name}" if name else "")
    put(folder / "gallery.html", page([encoder(view, experiment.gallery.dimensions) for view in seen]))
    return figures


def page_of(experiments: Sequence[tuple[str, Experiment]], store: Store) -> str:
    """gallery.html of several finished experiments, each with a name for people."""
    return page([encoder(view, each.gallery.dimensions) for name, each in experiments for view in views(each, store, name)])


def joined_page(folders: Sequence[Path]) -> str | None:
    """One gallery.html of those in some folders, to compare their representations side by side; None where one of them has none.
    ValueError, with its name, where one is damaged."""
    encoders = []
    for path in (folder / "gallery.html" for folder in folders):
        try:
            encoders += encoders_of(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: {error}") from None
    return page(encoders)


def written(folder: Path, texts: Mapping[str, str], others: Sequence[str]) -> bool:
    """Whether the folder already holds just these texts, and files of the other names, so that nothing has to be written again."""
    try:
        same = all((folder / name).read_text("utf-8") == text for name, text in texts.items())
    except (OSError, UnicodeDecodeError):
        return False
    return same and all(any(folder.glob(name)) for name in others)


# ------------------------------------------------------------------------------------------------ sweeps


def show_claim(answer: Answer, measure: str, folder: Path) -> list[Path]:
    """claim.png, if there are encoders enough; its path comes back."""
    from monosem.pictures import draw_claim

    if not answer.clouds:
        return []
    with whole(folder / "claim.png") as path:
        draw_claim(answer.lines, answer.clouds, measure, path)
    return [folder / "claim.png"]


def search(cells: Sequence[Cell], rows: Sequence[Row], goal: Goal) -> str:
    """The cells of a sweep by its goal, the best first; those beyond a bound, and those that did not finish, are last."""
    values: dict[tuple[str, Swept], dict[tuple[str, float, str], list[float]]] = {}
    for row in rows:
        values.setdefault((row.experiment, row.swept), {}).setdefault((row.curve, row.severity, row.metric), []).append(row.value)
    ranked = []
    for cell in cells:
        found = values.get((cell.experiment.name, cell.swept), {})
        score, *sizes = (
            sum(some) / len(some) if (some := found.get(place)) else None
            for place in [(goal.curve, goal.severity, goal.metric), *((MONOSEMANTICITY, 0.0, bound.metric) for bound in goal.bounds)]
        )
        within = all(size is not None and size <= bound.at_most for size, bound in zip(sizes, goal.bounds, strict=True))
        order = float("inf") if score is None else -score if goal.mode == "max" else score
        ranked.append((not within or score is None, order, cell.name, score, sizes))
    ranked.sort(key=lambda each: each[:3])
    header = [
        "cell",
        f"{goal.metric} of {goal.curve} at {goal.severity:g}",
        *(f"{bound.metric} (at most {bound.at_most:g})" for bound in goal.bounds),
    ]
    body = [
        [
            name,
            "not finished" if score is None else f"{score:.2f}{' (out of bounds)' if out else ''}",
            *("" if s is None else f"{s:.4g}" for s in sizes),
        ]
        for out, _, name, score, sizes in ranked
    ]
    best = next((name for out, _, name, _, _ in ranked if not out), None)
    words = f"Best within bounds: {best}" if best else "No cell is within the bounds"
    words += ". It was picked by the images that it is measured on, which flatters it; p-values know nothing of the search."
    return f"{markdown(header, body)}\n\n{words}"
