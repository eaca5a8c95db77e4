"""What is shown of a finished experiment's representations: their dimensions by the images that activate them, and the space."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from monosem.core.files import atomic_write
from monosem.core.stage import Artifact
from monosem.core.store import Store
from monosem.data.dataset import Dataset
from monosem.evaluation.experiment import Experiment
from monosem.metrics.base import PerDimension, from_artifact


class View(NamedTuple):
    """One representation. name: for people. measures: values and for which dimensions they count, by name; better: whether high or low
    is monosemantic; about: what they are. order: its live dimensions, the most monosemantic first by the measure `by`, which is '' where
    nothing says which way that is."""

    name: str
    data: Dataset
    portrait: Artifact
    measures: dict[str, tuple[Tensor, Tensor]]
    better: dict[str, str]
    about: dict[str, str]
    by: str
    order: list[int]

    def some(self, count: int) -> dict[str, list[int]]:
        """At most `count` dimensions, half of them from either end."""
        half, count = -(-min(count, len(self.order)) // 2), min(count, len(self.order))
        quality = "monosemantic" if self.by else "active"
        return {
            f"most {quality}": self.order[:half],
            f"least {quality}": self.order[len(self.order) - (count - half) :],
        }

    def value(self, name: str, dimension: int) -> float | None:
        values, valid = self.measures[name]
        return float(values[dimension]) if valid[dimension] else None


def views(experiment: Experiment, store: Store, title: str) -> list[View]:
    """One for every representation of an experiment whose stages have all run."""
    found = []
    for (name, (_, data)), measure, stage in zip(
        experiment.probed.items(), experiment.measures, experiment.dashboards, strict=True
    ):
        artifact, portrait = store.get(measure), store.get(stage)
        results = from_artifact(artifact)
        measures: dict[str, tuple[Tensor, Tensor]] = {
            key: result for key, result in results.items() if isinstance(result, PerDimension)
        }
        better = measure.better
        by = experiment.gallery.by or next((each for each in measures if each in better), "")
        order = _order(portrait, measures, better, by)
        found.append(
            View(
                f"{title}, {name}" if name else title,
                data,
                portrait,
                measures,
                better,
                measure.about,
                by,
                order,
            )
        )
    return found


def _order(
    portrait: Artifact, measures: dict[str, tuple[Tensor, Tensor]], better: dict[str, str], by: str
) -> list[int]:
    """Live dimensions, the most monosemantic first; of equal ones, the one that more images activate."""
    active = portrait["active"]
    values, valid = measures[by] if by else (active, active > 0)
    sign = 1 if better.get(by) == "low" else -1
    return sorted(
        (number for number in range(len(active)) if valid[number]),
        key=lambda d: (sign * float(values[d]), -float(active[d])),
    )


def thumbnails(data: Dataset, indices: Sequence[int]) -> np.ndarray[Any, Any]:
    """(k, side, side, 3) uint8: test images as an evaluation sees them."""
    pictures = data.show(indices)
    assert isinstance(pictures, Tensor), "texts are not drawn yet"
    return pictures.numpy()


def tops(view: View, dimension: int) -> list[tuple[int, float]]:
    """The test images that activate a dimension most, and how much; none where it is 0."""
    top, activation = (view.portrait[name][:, dimension].tolist() for name in ("top", "activation"))
    return [(index, value) for index, value in zip(top, activation, strict=True) if value != 0]


# ------------------------------------------------------------------------------------------------ the page


def encoder(view: View, count: int) -> dict[str, Any]:
    """What monosem.page shows of a view: at most `count` dimensions, and a sprite of all images that they name."""
    shown = [number for group in view.some(count).values() for number in group]
    every = sorted({index for number in shown for index, _ in tops(view, number)})
    cell = {index: place for place, index in enumerate(every)}
    labels = view.data.split("test").labels
    return {
        "name": view.name, "split": "test", "images_total": len(labels), "width": len(view.portrait["active"]),
        "classes": list(view.data.class_names), "sprite": _sprite(thumbnails(view.data, every)),
        "images": [{"index": index, "label": int(labels[index])} for index in every],
        "measures": [
            {"name": name, "about": view.about.get(name, ""), "better": view.better.get(name, "")}
            for name in sorted(view.measures, key=lambda name: name != view.by)  # the page sorts by the first
        ],
        "dimensions": [
            {
                "dimension": number,
                "measures": {name: view.value(name, number) for name in view.measures},
                "top": [[cell[index], value] for index, value in tops(view, number)],
                "active": float(view.portrait["active"][number]),
            }
            for number in shown
        ],
    }  # fmt: skip


def _sprite(images: np.ndarray[Any, Any]) -> dict[str, Any]:
    """All thumbnails in one picture, row by row: PNG where they are small, else JPEG."""
    columns, side = max(1, min(len(images), 40)), images.shape[1]
    sheet = np.zeros((-(-max(len(images), 1) // columns), columns, side, side, 3), dtype=np.uint8)
    sheet.reshape(-1, side, side, 3)[: len(images)] = images
    picture = Image.fromarray(
        sheet.transpose(0, 2, 1, 3, 4).reshape(sheet.shape[0] * side, columns * side, 3)
    )
    kind, buffer = "png" if side <= 32 else "jpeg", io.BytesIO()
    picture.save(buffer, kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
    return {
        "side": side,
        "columns": columns,
        "src": f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}",
    }


# ------------------------------------------------------------------------------------------------ figures


def draw_view(view: View, rows: int, folder: Path, suffix: str) -> list[Path]:
    """gallery.png, histograms.png and space.png of a view, whose paths come back."""
    from monosem.results.figures import draw_gallery, draw_histograms, draw_space

    shown = {
        heading: [_shown(view, number) for number in numbers]
        for heading, numbers in view.some(2 * rows).items()
    }
    order = view.portrait["order"]
    by = f"by {view.by.replace('_', ' ')}" if view.by else "by activity"
    paths = [folder / f"{name}{suffix}.png" for name in ("gallery", "histograms", "space")]
    with atomic_write(paths[0]) as path:
        draw_gallery(
            shown,
            f"{view.name}: the test images that activate a dimension most, dimensions {by}",
            path,
        )
    with atomic_write(paths[1]) as path:
        draw_histograms(shown, f"{view.name}: values of a dimension, dimensions {by}", path)
    with atomic_write(paths[2]) as path:
        draw_space(
            view.portrait["class_map"][:, order].numpy(),
            view.portrait["correlation"].numpy(),
            view.data.class_names,
            view.name,
            path,
        )
    return paths


def _shown(view: View, dimension: int) -> Any:
    from monosem.results.figures import Shown

    found, labels, names = (
        tops(view, dimension),
        view.data.split("test").labels,
        view.data.class_names,
    )
    active = f"active {100 * float(view.portrait['active'][dimension]):.2g} %"
    value = view.value(view.by, dimension) if view.by else None
    title = [
        f"dimension {dimension}",
        *([f"{view.by.replace('_', ' ')} {value:.3f}"] if value is not None else []),
        active,
    ]
    return Shown(
        title="\n".join(title),
        images=thumbnails(view.data, [index for index, _ in found]),
        captions=[f"{names[labels[index]]}  {activation:.2g}" for index, activation in found],
        histogram=view.portrait["histogram"][:, :, dimension].numpy(),
        low=float(view.portrait["low"][dimension]),
        high=float(view.portrait["high"][dimension]),
        best=names[int(view.portrait["class_map"][:, dimension].argmax())],
    )
