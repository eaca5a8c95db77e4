"""The stage that says which parts of an example matter to a dimension: without them, it falls.

What a part is, a word for example, is the dataset's knowledge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monosem.core.fields import Count
from monosem.core.stage import Artifact, Job, Stage
from monosem.data.dataset import Occlusions
from monosem.evaluation.dashboard import FeatureDashboard
from monosem.evaluation.monosemanticity import (
    Monosemanticity,
    both_ends,
    per_dimension_results,
    sorted_dimensions,
)
from monosem.models.features import encode

LEAST_SHARE = 0.05  # of an activation; a part that matters less is not marked

COLUMNS = ("dimension", "example", "span", "activation", "fall")
EMPTY = torch.zeros(0)

Marks = dict[tuple[int, int], list[list[float]]]


@dataclass(frozen=True, kw_only=True)
class Occlusion(Stage):
    """How much the dimensions that a gallery shows fall without single parts of their top examples.

    Occlusion as of Zeiler & Fergus (arXiv:1311.2901, section 4.2), with parts in place of patches.

    dashboard: names the examples.
    monosemanticity: sorts the dimensions.
    by: the result that sorts them; '' sorts by activity.
    dimensions: how many at most, half of them from either end.
    examples: of each dimension, those that activate it most.

    Artifact: of r pairs of a dimension and a part,
        dimension    (r,)
        example      (r,)    in the test split
        span         (r, 2)  start and end of the part in what the dataset shows of the example
        activation   (r,)    of the whole example
        fall         (r,)    how much of that is lost without the part; below 0 where it grows
    """

    dashboard: FeatureDashboard
    monosemanticity: Monosemanticity
    by: str
    dimensions: Count
    examples: Count

    def upstream(self) -> tuple[Stage, ...]:
        return (*self.dashboard.encoder.stages, self.dashboard, self.monosemanticity)

    def run(self, job: Job) -> Artifact:
        dashboard, data = job.get(self.dashboard), self.dashboard.data
        dimensions = self._shown(job)
        top = dashboard["top"][: self.examples, dimensions]
        activation = dashboard["activation"][: self.examples, dimensions]
        pairs = (activation != 0).nonzero().tolist()
        occlusions = {
            example: data.occlusions(example) for example in top[activation != 0].unique().tolist()
        }
        features = self._features(job, list(occlusions.values()))
        without = dict(zip(occlusions, features, strict=True))
        columns: dict[str, list[Tensor]] = {name: [] for name in COLUMNS}
        for rank, column in pairs:
            example, value = int(top[rank, column]), activation[rank, column]
            spans = torch.tensor(occlusions[example].spans, dtype=torch.int64).reshape(-1, 2)
            columns["dimension"].append(torch.full((len(spans),), dimensions[column]))
            columns["example"].append(torch.full((len(spans),), example))
            columns["span"].append(spans)
            columns["activation"].append(value.expand(len(spans)))
            columns["fall"].append(value - without[example][:, dimensions[column]])
        return {name: torch.cat(rows) if rows else EMPTY for name, rows in columns.items()}

    def _shown(self, job: Job) -> list[int]:
        """The dimensions that the gallery shows."""
        active = job.get(self.dashboard)["active"]
        results = per_dimension_results(job.get(self.monosemanticity))
        order = sorted_dimensions(active, results, self.monosemanticity.better, self.by)
        return [dimension for end in both_ends(order, self.dimensions) for dimension in end]

    def _features(self, job: Job, occlusions: Sequence[Occlusions]) -> Sequence[Tensor]:
        """(parts, width) of every example, without each of its parts."""
        if not occlusions:
            return []
        network = self.dashboard.encoder.network(job.get)
        inputs = torch.cat([occlusion.inputs for occlusion in occlusions])
        features = encode(network, self.dashboard.data, inputs).cpu()
        job.log(1, 1, encoder_passes=len(inputs))
        return features.split([len(occlusion.inputs) for occlusion in occlusions])


def marks_by_row(artifact: Artifact) -> Marks:
    """Of every dimension and example, [start, end, share of the activation] of what matters."""
    marks: Marks = {}
    share = artifact["fall"] / artifact["activation"]
    rows = zip(
        artifact["dimension"].tolist(),
        artifact["example"].tolist(),
        artifact["span"].tolist(),
        share.tolist(),
        strict=True,
    )
    for dimension, example, (start, end), part in rows:
        if part >= LEAST_SHARE:
            marks.setdefault((dimension, example), []).append([start, end, round(part, 3)])
    return marks
