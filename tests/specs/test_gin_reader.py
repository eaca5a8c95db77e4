"""Gin text to bindings: files are found by name, and what cannot be read is said with its place."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT

from monosem.specs.errors import SpecError
from monosem.specs.gin_reader import find_file, shipped_files
from monosem.specs.load import load

pytestmark = pytest.mark.usefixtures("in_root")

WRONG = [  # what is typed, and what is said
    (
        "Pretrian.epochs = 3",
        "there is nothing called Pretrian (--set 'Pretrian.epochs = 3'); did you mean Pretrain?",
    ),
    (
        "Pretrain.epoch = 3",
        "Pretrain has no parameter 'epoch' (--set 'Pretrain.epoch = 3'); did you mean epochs?",
    ),
    (
        "Pretrain.zzz = 3",
        "it has batch_size, classifier, clip, data",
    ),
    (
        "Pretrain.objective = @NonNegativ()",
        "there is nothing called @NonNegativ (--set 'Pretrain.objective = @NonNegativ()'); "
        "did you mean NonNegative?",
    ),
    (
        "Pretrain.schedule = @Nope()",
        "there is nothing called @Nope (--set 'Pretrain.schedule = @Nope()')",
    ),
    (
        "Pretrain.views = (@RandomRotation(), @GausianBlur())",
        "nothing called @GausianBlur (--set 'Pretrain.views = (@RandomRotation(), "
        "@GausianBlur())'); did you mean GaussianBlur?",
    ),
    (
        "few_shot/Curve.encoder = @Embeding()",
        "did you mean Embedding?",
    ),
    (
        "Pretrain.epochs = %epchs",
        "%epchs is used but never defined (--set 'Pretrain.epochs = %epchs')",
    ),
    (
        "",
        "--set '' holds no binding",
    ),
    (
        "# Pretrain.epochs = 3",
        "holds no binding",
    ),
    (
        "a = %b",
        "%b is used but never defined",
    ),
    (
        "LabelNoise.x = 1",
        "it has none",
    ),
    (
        "Pretrain.epochs",
        "--set 'Pretrain.epochs' is not Gin: Couldn't parse statement",
    ),
    (
        "Pretrain.epochs = ",
        "is not Gin",
    ),
    (
        "Pretrain.epochs = (1, ",
        "is not Gin",
    ),
    (
        "Pretrain.epochs = nan",
        "is not Gin: nan is no value: write quotes for a string, @Name() for an object",
    ),
    (
        "Pretrain.classifier = none",
        "is not Gin: none is no value: write None, or quotes for a string",
    ),
    (
        "Pretrain.objective = NonNegative()",
        "NonNegative() is no value: write @NonNegative() for an object, quotes for a string",
    ),
    (
        "import no_such_module",
        "--set: import no_such_module failed: ModuleNotFoundError: No module named "
        f"'no_such_module'; it is neither installed nor in {ROOT}",
    ),
    (
        "include 'gin/simcrl.gin'",
        "include in --set gin/simcrl.gin: the file does not exist; did you mean gin/simclr.gin?",
    ),
]


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_text_that_cannot_be_read_is_one_line_in_the_words_that_were_typed(typed, said):
    with pytest.raises(SpecError) as info:
        load(["gin/ncl.gin"], [typed])
    assert said in str(info.value)
    assert "\n" not in str(info.value)


# Files by name


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("gin/ncl.gin", "gin/ncl.gin"),
        ("ncl.gin", "gin/ncl.gin"),
        ("cifar100/ncl.gin", "gin/cifar100/ncl.gin"),
        ("pca.gin", "gin/controls/pca.gin"),
        ("seeds.gin", "sweeps/seeds.gin"),
    ],
)
def test_a_file_that_comes_with_monosem_is_found_by_its_name(name, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_file(name, "--gin").samefile(ROOT / file)


def test_a_file_where_one_is_comes_before_one_that_comes_with_monosem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ncl.gin").write_text("")
    assert find_file("ncl.gin", "--gin").samefile(tmp_path / "ncl.gin")


def test_a_bare_name_of_several_files_lists_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as info:
        find_file("supcon.gin", "--gin")
    assert str(info.value) == (
        "--gin supcon.gin: several files are called so: gin/cifar10/supcon.gin, "
        "gin/cifar100/supcon.gin, gin/imagenet100/supcon.gin; which one?"
    )


def test_an_include_is_looked_for_beside_its_file_and_one_folder_above(tmp_path):
    (tmp_path / "gin").mkdir()
    including = tmp_path / "gin" / "mine.gin"
    for name in ("beside.gin", "above.gin"):
        (tmp_path / "gin" / name).write_text("")
    assert find_file("beside.gin", "include", including).samefile(tmp_path / "gin" / "beside.gin")
    assert find_file("gin/above.gin", "include", including).samefile(tmp_path / "gin" / "above.gin")


def test_every_gin_file_of_the_project_comes_with_monosem():
    files = [*(ROOT / "gin").rglob("*.gin"), *(ROOT / "sweeps").rglob("*.gin")]
    assert sorted(shipped_files()) == sorted(str(path.relative_to(ROOT)) for path in files)


def test_a_name_that_is_no_file_is_met_with_the_nearest():
    hint = "--gin gin/nlc.gin: the file does not exist; did you mean gin/ncl.gin"
    with pytest.raises(SpecError, match=hint):
        load(["gin/nlc.gin"])
    with pytest.raises(SpecError, match="is a folder, not a Gin file"):
        load(["gin"])


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("nope.gin", ""),
        ("gin/nope.gin", ""),
        ("simcrl.gin", "; did you mean gin/simclr.gin?"),
        ("cifar1/ncl.gin", "; did you mean gin/cifar10/ncl.gin?"),
        ("cifar10/nlc.gin", "; did you mean gin/cifar10/ncl.gin?"),
    ],
)
def test_a_hint_at_a_file_is_of_one_that_is_called_alike(typed, hint):
    with pytest.raises(SpecError) as info:
        find_file(typed, "--gin")
    assert str(info.value) == f"--gin {typed}: the file does not exist{hint}"


def test_a_file_that_includes_itself_is_refused(tmp_path):
    (tmp_path / "loop.gin").write_text(f"include '{tmp_path / 'loop.gin'}'\n")
    with pytest.raises(SpecError, match="includes itself"):
        load([str(tmp_path / "loop.gin")])


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "binary.gin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match=r"--gin .*binary.gin: the file is not a text file"):
        load([str(tmp_path / "binary.gin")])


@pytest.mark.parametrize("text", ["", "# Pretrain.epochs = 3\n"])
def test_a_file_that_binds_nothing_is_told_how_to_begin(tmp_path, text):
    (tmp_path / "empty.gin").write_text(text)
    reason = r"empty.gin: the file binds nothing; begin with include 'gin/digits.gin'$"
    with pytest.raises(SpecError, match=reason):
        load([str(tmp_path / "empty.gin")])


# Places


def test_the_line_of_a_name_inside_a_statement_is_named(tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text(
        "# a comment\n\ninclude 'gin/simclr.gin'\n\n"
        "Pretrain.views = (\n    @RandomRotation(),\n    @Blurr(),\n)\n"
    )
    with pytest.raises(SpecError, match=r"nothing called @Blurr \(.*mine.gin:7: @Blurr\(\),\)"):
        load([str(file)])


def test_the_line_of_a_value_that_a_field_refuses_is_named(tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text(
        "include 'gin/simclr.gin'\n\nPretrain.epochs = 1\nContrastive.temperature = -2\n"
    )
    place = r"mine.gin:4: Contrastive.temperature = -2"
    with pytest.raises(SpecError, match=rf"must be above 0, got -2 \(.*{place}\)"):
        load([str(file)])


def test_the_line_of_a_syntax_error_is_named(tmp_path):
    (tmp_path / "mine.gin").write_text("Pretrain.epochs = = 3\n")
    with pytest.raises(SpecError, match=r"mine.gin:1 is not Gin: Unable to parse value"):
        load([str(tmp_path / "mine.gin")])


# Imports


def test_a_class_of_one_s_own_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(
        """
from dataclasses import dataclass

import gin
from monosem import Corruption

@gin.register
@dataclass(frozen=True)
class Darkness(Corruption):
    def inputs(self, inputs, data, severity, generator):
        return inputs - severity * data.pixel_range
"""
    )
    (tmp_path / "mine.gin").write_text(
        """
import my_parts
include 'gin/simclr.gin'

size = 8
Experiment.name = 'mine'
Digits.size = %size
gaussian/Curve.corruption = @Darkness()
"""
    )
    monkeypatch.chdir(tmp_path)
    spec = load(["mine.gin"])
    assert type(spec.experiment.curves[1].corruption).__name__ == "Darkness"
    assert spec.experiment.curves[0].data.size == 8
    assert spec.config.startswith("import my_parts")
    sys.modules.pop("my_parts")


def test_a_class_of_one_s_own_that_is_not_registered_is_told_so(tmp_path, monkeypatch):
    (tmp_path / "bare_parts.py").write_text("class Dusk:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    corruption = "gaussian/Curve.corruption = @Dusk()"
    with pytest.raises(SpecError) as info:
        load(["gin/simclr.gin"], ["import bare_parts", corruption])
    assert str(info.value) == f"bare_parts.Dusk lacks @gin.register (--set '{corruption}')"
    sys.modules.pop("bare_parts")


def test_what_a_file_imports_and_includes_may_lie_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("import gin\n")
    (tmp_path / "base.gin").write_text("include 'gin/simclr.gin'\nimport beside\n")
    text = "\ufeffinclude 'base.gin'\nExperiment.name = 'mine'\n"  # with a byte order mark
    (tmp_path / "mine.gin").write_text(text, encoding="utf-8")
    assert load([str(tmp_path / "mine.gin")]).experiment.name == "mine"


def test_an_import_that_fails_is_told_with_the_line_that_raised(tmp_path):
    (tmp_path / "broken_part.py").write_text("\n\n1 / 0\n")
    (tmp_path / "broken.gin").write_text("import broken_part\n")
    reason = "import broken_part failed: ZeroDivisionError: division by zero"
    with pytest.raises(SpecError, match=f"{reason}, .*broken_part.py:3"):
        load([str(tmp_path / "broken.gin")])


def test_an_import_that_would_end_the_process_is_an_import_that_fails(tmp_path):
    (tmp_path / "leaving_part.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "leaving.gin").write_text("import leaving_part\n")
    with pytest.raises(SpecError, match="import leaving_part failed: SystemExit: 3, .*:1"):
        load([str(tmp_path / "leaving.gin")])
