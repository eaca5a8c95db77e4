"""The gallery of an experiment: which dimensions are shown, in which order, by which examples."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import here, tiny_pretrain
from matplotlib.image import imread
from PIL import Image

from monosem.core.store import Store
from monosem.corruptions.label_noise import LabelNoise
from monosem.data.dataset import Dataset, Examples
from monosem.data.images import ImageDataset
from monosem.datasets.digits import Digits
from monosem.evaluation.experiment import Experiment, Gallery
from monosem.figures.gallery_page import read_gallery
from monosem.learning.optimizers import SGD, Constant
from monosem.metrics.classes import ClassConsistency, ClassSelectivity
from monosem.metrics.space import Dimensions
from monosem.models.baselines import Pixels
from monosem.models.features import Features
from monosem.models.representation import Embedding, Projection, Representation
from monosem.probes.linear import LinearProbe
from monosem.robustness.curves import Curve
from monosem.running.gallery import (
    draw_encoder,
    gallery_encoder,
    gallery_files,
    shown_encoders,
    write_experiment_gallery,
)

DATA = Digits(size=8)
ENCODER = Embedding(tiny_pretrain(epochs=1))
METRICS = (ClassConsistency(), ClassSelectivity(), Dimensions())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def an_experiment(*encoders, data=DATA, **fields):
    """An experiment with a curve for each encoder."""
    curves = tuple(
        Curve(
            name=f"c{index}",
            encoder=encoder,
            data=data,
            probe=LinearProbe(SGD(lr=1.0), Constant(), epochs=1, batch_size=4),
            corruption=LabelNoise(),
            severities=(0.0,),
            repeats=1,
        )
        for index, encoder in enumerate(encoders)
    )
    usual = {"metrics": METRICS, "gallery": Gallery(images=4, rows=2, dimensions=6)}
    return Experiment(name="x", curves=curves, **{**usual, **fields})


def finished(store, experiment):
    for stage in experiment.stages:
        store.get(stage)
    return experiment


def shown_of(store, experiment, title="title"):
    """The only encoder of an experiment, as the gallery shows it."""
    (shown,) = shown_encoders(finished(store, experiment), store, title)
    return shown


# The order of dimensions


def test_dimensions_come_from_the_most_to_the_least_monosemantic_without_dead_ones(store):
    shown = shown_of(store, an_experiment(ENCODER))
    values, valid = shown.results["class_consistency"]
    in_order = [values[dimension].item() for dimension in shown.order]
    assert in_order == sorted(in_order, reverse=True)
    assert set(shown.order) == set(valid.nonzero().flatten().tolist())


def test_half_of_the_shown_dimensions_are_from_either_end(store):
    shown = shown_of(store, an_experiment(ENCODER))
    assert shown.both_ends(4) == {
        "most monosemantic": shown.order[:2],
        "least monosemantic": shown.order[-2:],
    }
    first, last = shown.both_ends(1000).values()
    assert first + last == shown.order


@pytest.mark.parametrize(("by", "falling"), [("class_entropy", False), ("class_selectivity", True)])
def test_dimensions_are_sorted_by_the_result_that_is_asked_for_in_its_own_direction(
    store, by, falling
):
    shown = shown_of(store, an_experiment(ENCODER, gallery=Gallery(by=by, images=4)))
    in_order = [shown.results[by].values[dimension].item() for dimension in shown.order]
    assert shown.sorted_by == by
    assert in_order == sorted(in_order, reverse=falling)


def test_without_a_result_that_says_which_end_is_better_they_are_sorted_by_activity(store):
    shown = shown_of(store, an_experiment(ENCODER, metrics=(Dimensions(),)))
    in_order = [shown.dashboard["active"][dimension].item() for dimension in shown.order]
    assert shown.sorted_by == ""
    assert in_order == sorted(in_order, reverse=True)
    assert list(shown.both_ends(2)) == ["most active", "least active"]


# What the page is given


def test_the_page_shows_the_examples_that_activate_a_dimension_most(store):
    page = gallery_encoder(shown_of(store, an_experiment(ENCODER)), 6)
    features = store.get(Features(ENCODER, DATA, "test"))["features"]
    labels = DATA.split("test").labels
    assert (len(page["dimensions"]), page["width"], page["examples_total"]) == (6, 16, 360)
    for card in page["dimensions"]:
        column = features[:, card["dimension"]]
        largest = [value for value in column.topk(4).values.tolist() if value]
        assert [activation for _, activation in card["top"]] == pytest.approx(largest)
        for place, activation in card["top"]:
            example = page["examples"][place]
            assert column[example["index"]].item() == pytest.approx(activation)
            assert example["label"] == labels[example["index"]]


def test_a_cell_of_the_sprite_is_the_image_of_its_example(store):
    page = gallery_encoder(shown_of(store, an_experiment(ENCODER)), 6)
    images = DATA.split("test").inputs
    side, columns = page["sprite"]["side"], page["sprite"]["columns"]
    png = base64.b64decode(page["sprite"]["src"].partition(",")[2])
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    for place, example in enumerate(page["examples"]):
        y, x = place // columns * side, place % columns * side
        cell = sheet[y : y + side, x : x + side, 0]
        assert np.array_equal(cell, images[example["index"], 0].numpy())


class Strips(ImageDataset):
    """Wide images of four channels, in classes with names of any signs."""

    def load(self, split):
        draw = torch.Generator().manual_seed(len(split))
        images = torch.randint(256, (12, 4, 30, 100), generator=draw, dtype=torch.uint8)
        return Examples(images, torch.arange(12) % 3)

    @property
    def class_names(self):
        return ("<script>", "b & b", "ü")


def test_large_images_of_any_shape_and_names_of_any_signs_are_shown(store, tmp_path):
    data = Strips((0.5,) * 4, (0.2,) * 4)
    shown = shown_of(store, an_experiment(Pixels(data, side=4), data=data), title="<x>")
    assert gallery_encoder(shown, 4)["sprite"]["src"].startswith("data:image/jpeg")
    for path in draw_encoder(shown, 2, tmp_path, ""):
        assert imread(path).ndim == 3


# Figures


@pytest.mark.parametrize(
    "encoder", [ENCODER, Projection(ENCODER.encoder)], ids=["rectified", "signed"]
)
def test_figures_are_drawn_of_any_representation(store, tmp_path, encoder):
    paths = draw_encoder(shown_of(store, an_experiment(encoder)), 2, tmp_path, "-a")
    assert [path.name for path in paths] == ["gallery-a.png", "histograms-a.png", "space-a.png"]
    assert all(imread(path).std() > 0.01 for path in paths)


def test_a_representation_that_is_dead_altogether_has_figures_and_a_page(store, tmp_path):
    class Nothing(Pixels):
        def network(self, get):
            return torch.nn.Sequential(super().network(get), torch.nn.Threshold(1e9, 0.0))

    shown = shown_of(store, an_experiment(Nothing(DATA)))
    assert shown.order == []
    assert gallery_encoder(shown, 6)["dimensions"] == []
    assert all(imread(path).ndim == 3 for path in draw_encoder(shown, 2, tmp_path, ""))


@pytest.mark.parametrize("encoders", [(ENCODER,), (ENCODER, Pixels(DATA))], ids=["one", "two"])
def test_an_experiment_leaves_the_files_that_it_names(store, tmp_path, encoders):
    experiment = finished(store, an_experiment(*encoders))
    figures = write_experiment_gallery(experiment, store, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(gallery_files(experiment))
    assert [path.name for path in figures] == gallery_files(experiment)[2:]


# Examples that are no images


@dataclass(frozen=True)
class Notes(Dataset):
    """Short texts of two kinds, as counts of eight letters."""

    def load(self, split):
        texts = self.texts(40)
        counts = torch.tensor([[text.count(letter) for letter in "abcdefgh"] for text in texts])
        return Examples(counts, torch.arange(40) % 2)

    def texts(self, count):
        return [f"note {index}: {'abcd'[index % 4] * (index + 1)}" for index in range(count)]

    def prepare(self, inputs):
        return inputs.float()

    def show(self, indices):
        texts = self.texts(40)
        return [texts[index] for index in indices]


class Letters(Representation):
    """The counts of letters themselves."""

    width = 8

    def network(self, get):
        return torch.nn.Identity()


def test_texts_are_shown_as_texts_and_not_drawn(store, tmp_path):
    data = Notes()
    experiment = an_experiment(Letters(), data=data, reference_encoder=Letters())
    figures = write_experiment_gallery(finished(store, experiment), store, tmp_path)
    assert [path.name for path in figures] == ["histograms.png", "space.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(gallery_files(experiment))
    (page,) = read_gallery(tmp_path / "gallery.json")
    assert "sprite" not in page
    indices = [example["index"] for example in page["examples"]]
    assert page["texts"] == data.show(indices)


def test_what_is_no_image_needs_a_reference_encoder():
    with pytest.raises(
        ValueError,
        match="Experiment.reference_encoder must be set: its default, the pixels, is for images, "
        "not for Notes",
    ):
        an_experiment(Letters(), data=Notes())


# From the command line


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders that later tests share, with simclr and ncl run in them."""
    return tmp_path_factory.mktemp("runs")


def run_both(capsys, tiny_gin, folder):
    for name in ("simclr", "ncl"):
        out = run_one(capsys, tiny_gin, folder, name)
        assert out.returncode == 0, out.stderr


def run_one(capsys, tiny_gin, folder, name):
    places = ("--runs", folder / "runs", "--store", folder / "store")
    return here(capsys, "--gin", f"gin/{name}.gin", "--gin", tiny_gin, *places)


def gather(capsys, folder, target):
    folders = (folder / "runs" / "simclr", folder / "runs" / "ncl")
    return here(capsys, "--gather", *folders, "--runs", target)


@pytest.mark.slow
def test_a_run_leaves_its_measures_and_its_gallery(runs, capsys, tiny_gin):
    run_both(capsys, tiny_gin, runs)
    folder = runs / "runs" / "ncl"
    assert {
        "measures.csv",
        "gallery.json",
        "gallery.html",
        "gallery.png",
        "space.png",
        "histograms.png",
        "curves.png",
        "summary.md",
    } <= {path.name for path in folder.iterdir()}
    assert "monosemanticity_score" in (folder / "summary.md").read_text()
    assert [encoder["name"] for encoder in read_gallery(folder / "gallery.json")] == ["ncl"]


@pytest.mark.slow
def test_the_mean_in_measures_csv_is_that_of_its_dimensions(runs, capsys, tiny_gin):
    run_both(capsys, tiny_gin, runs)
    header, *lines = (runs / "runs" / "ncl" / "measures.csv").read_text().splitlines()
    assert header == "experiment,representation,measure,dimension,value,dimensions,n"
    table = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    names = {row["measure"] for row in table}
    assert {"fms", "effective_rank", "precision_at_10", "dead_dimensions"} <= names
    for measure in ("class_consistency", "monosemanticity_score", "class_selectivity"):
        rows = [row for row in table if row["measure"] == measure]
        (whole,) = (row for row in rows if not row["dimension"])
        values = [float(row["value"]) for row in rows if row["dimension"]]
        assert len(values) == int(whole["dimensions"])
        assert float(whole["value"]) == pytest.approx(np.mean(values))


@pytest.mark.slow
def test_two_runs_are_compared_on_one_page(runs, tmp_path, capsys, tiny_gin):
    run_both(capsys, tiny_gin, runs)
    out = gather(capsys, runs, tmp_path)
    assert out.returncode == 0, out.stderr
    joined = read_gallery(tmp_path / "simclr+ncl" / "gallery.json")
    assert [encoder["name"] for encoder in joined] == ["simclr", "ncl"]
    assert (tmp_path / "simclr+ncl" / "gallery.html").exists()


@pytest.mark.slow
def test_a_damaged_gallery_is_refused_by_its_name_and_written_again_by_a_run(
    runs, tmp_path, capsys, tiny_gin
):
    run_both(capsys, tiny_gin, runs)
    path = runs / "runs" / "ncl" / "gallery.json"
    text = path.read_text()
    path.write_text(text[:5000])
    out = gather(capsys, runs, tmp_path / "other")
    assert out.returncode == 2
    assert f"{path} is no gallery, or damaged: " in out.stderr
    assert not (tmp_path / "other").exists()
    path.unlink()
    assert run_one(capsys, tiny_gin, runs, "ncl").returncode == 0
    assert path.read_text() == text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gallery.json", "gallery.html", "histograms.png"])
def test_a_run_that_lacks_a_file_is_written_again(runs, capsys, tiny_gin, name):
    run_both(capsys, tiny_gin, runs)
    path = runs / "runs" / "ncl" / name
    content = path.read_bytes()
    path.unlink()
    assert run_one(capsys, tiny_gin, runs, "ncl").returncode == 0
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        (
            "Gallery.by = 'class_consistencey'",
            "Gallery.by must be one of class_consistency, class_entropy, class_selectivity, ",
        ),
        ("Gallery.by = 'fms'", "Gallery.by must be one of class_consistency, "),
        ("Gallery.images = 0", "Gallery.images must be between 1 and 100, got 0"),
        (
            "Experiment.reference_encoder = @Digits()",
            "Experiment.reference_encoder must be a Representation, got Digits()",
        ),
        (
            "Experiment.judge = @Pixels()",
            "Experiment has no parameter 'judge'",
        ),
        (
            "MonosemanticityScore.reference = 1",
            "MonosemanticityScore has no parameter 'reference'",
        ),
        ("RetrievalPrecision.k = 0", "RetrievalPrecision.k must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_shown_or_measured_is_said_before_any_work(
    capsys, tmp_path, binding, message
):
    places = ("--runs", tmp_path / "runs", "--store", tmp_path / "store")
    out = here(capsys, "--gin", "gin/ncl.gin", "--set", binding, *places)
    assert out.returncode == 2
    assert message in out.stderr
    assert len(out.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
