"""What a reader of an experiment's numbers has to know: what was trained and probed, how, on what.

It is the list at the top of summary.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from monosem.core.fields import Part
from monosem.core.stage import Stage, closure
from monosem.core.store import Store
from monosem.evaluation.curves import SeverityCurve
from monosem.evaluation.experiment import Experiment
from monosem.models.features import Features
from monosem.models.pretrain import Pretrain
from monosem.models.representation import Representation
from monosem.models.training import Training


def describe_experiment(experiment: Experiment, store: Store) -> str:
    """A Markdown list of what was trained and probed, how, and what it took."""
    stages = closure(experiment.stages)
    lines = [*_probed(experiment), *_probes(experiment)]
    for stage in stages:
        lines += _training(stage)
        lines += _encoder_passes(stage, store)
    lines += _hardware(stages, store)
    return "\n".join(f"- {line}" for line in lines)


def describe_representation(part: Part) -> str:
    """A representation and what it stands on: Embedding of Pretrain."""
    name = type(part).__name__
    upstream = getattr(part, "encoder", None)
    if not isinstance(upstream, Part):
        return name
    return f"{name} of {describe_representation(upstream)}"


def _probed(experiment: Experiment) -> list[str]:
    encoders = dict.fromkeys(curve.encoder for curve in experiment.curves)
    return [f"probed: {describe_representation(encoder)}" for encoder in encoders]


def _probes(experiment: Experiment) -> list[str]:
    curves = [curve for curve in experiment.curves if hasattr(curve, "probe")]
    probes = dict.fromkeys(curve.probe for curve in curves)
    return [f"probe: {probe}" for probe in probes]


def _training(stage: Stage) -> Iterator[str]:
    """The settings of a training, in a list of their own."""
    if not isinstance(stage, Training):
        return
    lines = [type(stage).__name__]
    for field in fields(stage):
        value = getattr(stage, field.name)
        if not isinstance(value, Representation):
            lines.append(f"{field.name}: {value}")
    yield "\n  - ".join(lines)
    if isinstance(stage, Pretrain):
        yield f"online classifier: {_online_classifier(stage)}"


def _online_classifier(stage: Pretrain) -> str:
    if stage.classifier is None:
        return "absent"
    if stage.classifier.joint:
        return "joint, so clean labels train the encoder too"
    return "detached, it only watches"


def _encoder_passes(stage: Stage, store: Store) -> Iterator[str]:
    """How many images went through an encoder for a stage, where the stage logged it."""
    history = store.history(stage)
    if not history or "encoder_passes" not in history[-1].scalars:
        return
    if isinstance(stage, SeverityCurve):
        purpose = f"curve {stage.name}"
    else:
        purpose = describe_representation(stage)
    if isinstance(stage, Features):
        purpose += f", {stage.split} split"
    passes = history[-1].scalars["encoder_passes"]
    yield f"encoder passes for {purpose}: {passes:.0f} images"


def _hardware(stages: list[Stage], store: Store) -> list[str]:
    lines = []
    for stage in stages:
        made = store.provenance(stage)
        lines.append(
            f"computed with torch {made['torch']} on {made['device']}, {made['threads']} threads"
        )
    return list(dict.fromkeys(lines))
