"""From a finished experiment to its table, its facts and the files of its run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from monosem.curves import Row, draw, names, table_text, tables
from monosem.evaluation import Curve, Experiment, Features
from monosem.stage import Part, closure
from monosem.store import Store
from monosem.training import Pretrain, Representation, Training


def collect(experiment: Experiment, store: Store) -> list[Row]:
    """The table of an experiment whose stages have all run."""
    return [
        Row(experiment.name, stage.name, result.severity, result.repeat, result.metric, result.value, result.n, stage.axis)
        for stage in experiment.stages
        for result in stage.results(store.get(stage))
    ]


def facts(experiment: Experiment, store: Store) -> str:
    """What a reader of the numbers has to know, as a Markdown list: what was trained and probed, how, and what it took."""
    stages = closure(experiment.stages)
    lines = [f"probed: {chain(each)}" for each in dict.fromkeys(curve.encoder for curve in experiment.curves)]
    lines += [f"probe: {probe}" for probe in dict.fromkeys(curve.probe for curve in experiment.curves)]
    for stage in stages:
        if isinstance(stage, Training):
            values = {field.name: getattr(stage, field.name) for field in fields(stage)}
            settings = [f"{name}: {value}" for name, value in values.items() if not isinstance(value, Representation)]
            lines.append("\n  - ".join([type(stage).__name__, *settings]))
        if isinstance(stage, Pretrain):
            lines.append(f"online classifier: {online(stage)}")
        if isinstance(stage, Features | Curve):
            what = f"curve {stage.name}" if isinstance(stage, Curve) else f"{stage.split} split, {chain(stage.encoder)}"
            lines.append(f"encoder passes for {what}: {store.history(stage)[-1].scalars['encoder_passes']:.0f} images")
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


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` only when everything is written."""
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    yield aside
    aside.replace(path)


def write(folder: Path, rows: Sequence[Row], notes: str = "", config: str | None = None) -> None:
    """curves.csv, curves.png, summary.md and, where there is one, config.gin."""
    if config is not None:
        with whole(folder / "config.gin") as path:
            path.write_text(config, encoding="utf-8")
    with whole(folder / "curves.csv") as path:
        path.write_text(table_text(rows), encoding="utf-8")
    redraw(folder, rows)
    with whole(folder / "summary.md") as path:
        path.write_text(f"# {', '.join(names(rows)[0])}\n\n{notes}\n\n{tables(rows)}", encoding="utf-8")


def redraw(folder: Path, rows: Sequence[Row]) -> None:
    with whole(folder / "curves.png") as path:
        draw(rows, path)


def written(folder: Path, rows: Sequence[Row], config: str) -> bool:
    """Whether the folder already holds just this, event file and all, so that nothing has to be drawn again."""
    try:
        same = (folder / "config.gin").read_text("utf-8") == config and (folder / "curves.csv").read_text("utf-8") == table_text(rows)
    except (OSError, UnicodeDecodeError):
        return False
    return same and all(any(folder.glob(name)) for name in ("curves.png", "summary.md", "events.out.tfevents.*"))
