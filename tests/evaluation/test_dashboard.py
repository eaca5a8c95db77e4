"""What is shown of a representation: the largest activations, the maps, and the page and figures made from them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from conftest import here, tiny_pretrain
from matplotlib.image import imread
from PIL import Image
from torch.testing import assert_close

from monosem.core.store import Store
from monosem.data.dataset import Dataset, Examples
from monosem.data.digits import Digits
from monosem.evaluation import gallery
from monosem.evaluation.corruptions import LabelNoise
from monosem.evaluation.curves import Curve
from monosem.evaluation.dashboard import BINS, FeatureDashboard, most_activating
from monosem.evaluation.experiment import Experiment, Gallery
from monosem.evaluation.probes import LinearProbe
from monosem.learning.optimizers import SGD, Constant
from monosem.metrics.classes import ClassConsistency, ClassSelectivity
from monosem.metrics.space import Dimensions
from monosem.models.baselines import Pixels
from monosem.models.features import Features
from monosem.models.representation import Embedding, Projection
from monosem.results.gallery_page import encoders_of

DATA = Digits(size=8)
ENCODER = Embedding(tiny_pretrain(epochs=1))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


METRICS = (ClassConsistency(), ClassSelectivity(), Dimensions())


def experiment(*encoders, metrics=METRICS, shown=None, data=DATA):
    probe = LinearProbe(SGD(lr=1.0), Constant(), epochs=1, batch_size=4)
    shared = {
        "data": data,
        "probe": probe,
        "corruption": LabelNoise(),
        "severities": (0.0,),
        "repeats": 1,
    }
    curves = tuple(
        Curve(name=f"c{number}", encoder=encoder, **shared)
        for number, encoder in enumerate(encoders)
    )
    return Experiment(
        name="x",
        curves=curves,
        metrics=metrics,
        gallery=shown or Gallery(images=4, rows=2, dimensions=6),
    )


def finished(store, asked):
    for stage in asked.stages:
        store.get(stage)
    return asked


# ------------------------------------------------------------------------------------------------ the stage


@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_streaming_in_chunks_of_any_size_finds_the_largest_activations_of_the_whole(chunk):
    features = (
        torch.randn(200, 5, generator=torch.Generator().manual_seed(0)).relu().mul(4).round()
    )  # many ties
    values, rows = most_activating(features.split(chunk), 9)
    expected, order = features.sort(dim=0, descending=True, stable=True)
    assert torch.equal(values, expected[:9]) and torch.equal(rows, order[:9])


def test_of_few_images_there_are_few_to_show():
    values, rows = most_activating(torch.tensor([[1.0], [3.0]]).split(1), 5)
    assert values.flatten().tolist() == [3, 1] and rows.flatten().tolist() == [1, 0]


def test_a_portrait_is_what_plain_loops_find(store):
    stage = FeatureDashboard(encoder=ENCODER, data=DATA, images=3)
    artifact, features = store.get(stage), store.get(Features(ENCODER, DATA, "test"))["features"]
    labels = DATA.split("test").labels
    for d in range(16):
        column = features[:, d]
        assert artifact["active"][d] == pytest.approx((column != 0).double().mean().item())
        means = [column[labels == c].double().mean().item() for c in range(10)]
        assert artifact["class_map"][:, d].tolist() == pytest.approx(means, abs=1e-9)
        own = labels == int(np.argmax(means))
        for group, where in enumerate((own, ~own)):
            counts, _ = np.histogram(
                column[where].numpy(), BINS, (column.min().item(), column.max().item() or 1e-9)
            )
            found = artifact["histogram"][group, :, d]
            assert (
                found.sum() == int(where.sum()) and abs(found.numpy() - counts).sum() <= 4
            )  # an edge rounds either way
    order = artifact["order"]
    assert all((features[:, d] != 0).any() for d in order) and len(order) == int(
        (features != 0).any(0).sum()
    )
    columns = torch.nn.functional.normalize(features[:, order], dim=0)
    assert_close(artifact["correlation"], columns.T @ columns)


# ------------------------------------------------------------------------------------------------ views


def test_dimensions_are_shown_from_the_most_to_the_least_monosemantic_without_dead_ones(store):
    (view,) = gallery.views(finished(store, experiment(ENCODER)), store, "title")
    values, valid = view.measures["class_consistency"]
    shown = [values[d].item() for d in view.order]
    assert shown == sorted(shown, reverse=True) and set(view.order) == set(
        valid.nonzero().flatten().tolist()
    )
    first, last = view.some(4).values()
    assert first == view.order[:2] and last == view.order[-2:]
    assert sum(map(len, view.some(1000).values())) == len(view.order)


@pytest.mark.parametrize(("by", "falling"), [("class_entropy", False), ("class_selectivity", True)])
def test_they_are_sorted_by_the_measure_that_is_asked_for_in_its_own_direction(store, by, falling):
    (view,) = gallery.views(
        finished(store, experiment(ENCODER, shown=Gallery(by=by, images=4))), store, "title"
    )
    shown = [view.measures[by][0][d].item() for d in view.order]
    assert view.by == by and shown == sorted(shown, reverse=falling)


def test_without_a_measure_that_says_which_way_they_are_sorted_by_activity(store):
    (view,) = gallery.views(
        finished(store, experiment(ENCODER, metrics=(Dimensions(),))), store, "title"
    )
    shown = [view.portrait["active"][d].item() for d in view.order]
    assert (
        view.by == ""
        and shown == sorted(shown, reverse=True)
        and list(view.some(2)) == ["most active", "least active"]
    )


def test_the_page_shows_the_images_that_activate_a_dimension_with_class_and_activation(store):
    asked = finished(store, experiment(ENCODER))
    (view,) = gallery.views(asked, store, "title")
    shown = gallery.encoder(view, 6)
    images, labels, _ = DATA.split("test")
    features = store.get(Features(ENCODER, DATA, "test"))["features"]
    sheet = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(shown["sprite"]["src"].partition(",")[2])))
    )
    side, columns = shown["sprite"]["side"], shown["sprite"]["columns"]
    assert len(shown["dimensions"]) == 6 and shown["width"] == 16 and shown["images_total"] == 360
    for card in shown["dimensions"]:
        largest = features[:, card["dimension"]].topk(4).values.tolist()
        assert [value for _, value in card["top"]] == pytest.approx(
            [value for value in largest if value]
        )
        for cell, value in card["top"]:
            index = shown["images"][cell]["index"]
            assert features[index, card["dimension"]].item() == pytest.approx(value)
            assert shown["images"][cell]["label"] == labels[index]
            y, x = cell // columns * side, cell % columns * side
            assert np.array_equal(sheet[y : y + side, x : x + side, 0], images[index, 0].numpy())


class Strips(Dataset):
    """Six wide images of four channels, with names."""

    def load(self, split):
        draw = torch.Generator().manual_seed(len(split))
        return Examples(
            torch.randint(256, (12, 4, 30, 100), generator=draw, dtype=torch.uint8),
            torch.arange(12) % 3,
        )

    @property
    def class_names(self):
        return ("<script>", "b & b", "ü")


def test_large_images_of_any_shape_and_names_of_any_signs_are_shown(store, tmp_path):
    data = Strips((0.5,) * 4, (0.2,) * 4)
    asked = finished(store, experiment(Pixels(data, side=4), data=data))
    (view,) = gallery.views(asked, store, "<x>")
    assert gallery.thumbnails(data, [0, 5]).shape == (2, 48, 48, 3)
    assert gallery.encoder(view, 4)["sprite"]["src"].startswith("data:image/jpeg")
    for path in gallery.draw_view(view, 2, tmp_path, ""):
        assert imread(path).ndim == 3


@pytest.mark.parametrize(
    "encoder", [ENCODER, Projection(ENCODER.encoder)], ids=["rectified", "signed"]
)
def test_figures_are_drawn_of_any_representation(store, tmp_path, encoder):
    (view,) = gallery.views(finished(store, experiment(encoder)), store, "x")
    paths = gallery.draw_view(view, 2, tmp_path, "-a")
    assert [path.name for path in paths] == ["gallery-a.png", "histograms-a.png", "space-a.png"]
    assert all(imread(path).std() > 0.01 for path in paths)


def test_a_representation_that_is_dead_altogether_has_figures_and_a_page(store, tmp_path):
    class Nothing(Pixels):
        def network(self, get):
            return torch.nn.Sequential(super().network(get), torch.nn.Threshold(1e9, 0.0))

    asked = finished(store, experiment(Nothing(DATA)))
    (view,) = gallery.views(asked, store, "x")
    assert view.order == [] and gallery.encoder(view, 6)["dimensions"] == []
    assert all(imread(path).ndim == 3 for path in gallery.draw_view(view, 2, tmp_path, ""))


# ------------------------------------------------------------------------------------------------ from the command line


def test_an_experiment_leaves_its_measures_gallery_and_space_and_two_are_compared_on_one_page(
    tmp_path, capsys, tiny_gin
):
    places = ("--runs", tmp_path / "runs", "--store", tmp_path / "store")
    for name in ("simclr", "ncl"):
        out = here(capsys, "--gin", f"gin/{name}.gin", "--gin", tiny_gin, *places)
        assert out.returncode == 0, out.stderr
    folder = tmp_path / "runs" / "ncl"
    there = {path.name for path in folder.iterdir()}
    assert {
        "measures.csv",
        "gallery.html",
        "gallery.png",
        "space.png",
        "histograms.png",
        "curves.png",
        "summary.md",
    } <= there
    header, *lines = (folder / "measures.csv").read_text().splitlines()
    assert header == "experiment,representation,measure,dimension,value,dimensions,images"
    table = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    for measure in ("class_consistency", "monosemanticity_score", "class_selectivity"):
        (whole,) = (row for row in table if row["measure"] == measure and not row["dimension"])
        each = [
            float(row["value"]) for row in table if row["measure"] == measure and row["dimension"]
        ]
        assert len(each) == int(whole["dimensions"]) and float(whole["value"]) == pytest.approx(
            np.mean(each)
        )
    assert {"fms", "effective_rank", "precision_at_10", "dead_dimensions"} <= {
        row["measure"] for row in table
    }
    assert "monosemanticity_score" in (folder / "summary.md").read_text()
    assert [each["name"] for each in encoders_of((folder / "gallery.html").read_text())] == ["ncl"]
    out = here(
        capsys, "--gather", tmp_path / "runs" / "simclr", folder, "--runs", tmp_path / "runs"
    )
    assert out.returncode == 0, out.stderr
    joined = encoders_of((tmp_path / "runs" / "simclr+ncl" / "gallery.html").read_text())
    assert [each["name"] for each in joined] == ["simclr", "ncl"]
    (folder / "histograms.png").unlink()
    text = (folder / "gallery.html").read_text()
    (folder / "gallery.html").write_text(text[:5000])
    damaged = here(
        capsys, "--gather", tmp_path / "runs" / "simclr", folder, "--runs", tmp_path / "other"
    )
    assert (
        damaged.returncode == 2
        and f"{folder / 'gallery.html'}: " in damaged.stderr
        and not (tmp_path / "other").exists()
    )
    (
        folder / "gallery.html"
    ).unlink()  # a run that lacks something is written again, from the store
    assert here(capsys, "--gin", "gin/ncl.gin", "--gin", tiny_gin, *places).returncode == 0
    assert (folder / "gallery.html").read_text() == text and (folder / "histograms.png").exists()


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        (
            "Gallery.by = 'class_consistencey'",
            "Gallery.by must be one of class_consistency, class_entropy, class_selectivity, ",
        ),
        ("Gallery.by = 'fms'", "Gallery.by must be one of class_consistency, "),
        ("Gallery.images = 0", "Gallery.images must be between 1 and 100, got 0"),
        ("Experiment.judge = @Digits()", "Experiment.judge must be a Representation, got Digits()"),
        ("MonosemanticityScore.judge = 1", "MonosemanticityScore has no parameter 'judge'"),
        ("RetrievalPrecision.k = 0", "RetrievalPrecision.k must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_shown_or_measured_is_said_before_any_work(capsys, tmp_path, binding, words):
    out = here(
        capsys,
        "--gin",
        "gin/ncl.gin",
        "--set",
        binding,
        "--runs",
        tmp_path / "runs",
        "--store",
        tmp_path / "store",
    )
    assert out.returncode == 2 and words in out.stderr and len(out.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
