"""What pip install gives: the command monosem, from any folder, with Gin files found by name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow

SOURCES = ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "monosem", "gin", "sweeps")


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as a build leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    out = call(*pip, "--wheel-dir", source / "wheels", ".", cwd=source)
    assert out.returncode == 0, out.stderr
    (path,) = (source / "wheels").glob("monosem-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin folder of a fresh environment that has the wheel, and borrows what it depends on."""
    place = tmp_path_factory.mktemp("installed") / "environment"
    assert call(sys.executable, "-m", "venv", "--without-pip", place, cwd=ROOT).returncode == 0
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--quiet"]
    out = call(*pip, "--no-deps", "--no-index", wheel, cwd=ROOT)
    assert out.returncode == 0, out.stderr
    return place / "bin"


def test_the_wheel_holds_every_file_of_the_package_and_every_gin_file(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "monosem").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert str(path.relative_to(ROOT)) in held
    for path in [*(ROOT / "gin").rglob("*.gin"), *(ROOT / "sweeps").rglob("*.gin")]:
        assert f"monosem/library/{path.relative_to(ROOT)}" in held


@pytest.mark.parametrize(
    ("file", "planned"),
    [
        ("ncl.gin", "ncl: 10 to compute, in 3 waves"),
        ("gin/ncl.gin", "ncl: 10 to compute, in 3 waves"),
        ("few_shot.gin", "few_shot: 96 to compute, in 4 waves, for 15 cells"),
    ],
)
def test_the_command_finds_gin_files_by_name_from_an_empty_folder(
    installed, tmp_path, file, planned
):
    out = call(installed / "monosem", "--gin", file, "--plan", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[-1].startswith(planned)
    assert not list(tmp_path.iterdir())


def test_the_module_runs_as_the_command_does(installed, tmp_path):
    command = [installed / "python", "-m", "monosem", "--gin", "ncl.gin", "--plan"]
    assert "ncl: 10 to compute" in call(*command, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("command", "name"),
    [(["monosem"], "monosem"), (["python", "-m", "monosem"], "python -m monosem")],
    ids=["command", "module"],
)
def test_messages_name_the_program_that_was_typed(installed, tmp_path, command, name):
    program = [installed / command[0], *command[1:]]
    out = call(*program, "--gin", "nlc.gin", cwd=tmp_path)
    assert out.returncode == 2
    reason = "the file does not exist; did you mean gin/ncl.gin?"
    assert out.stderr == f"{name}: --gin nlc.gin: {reason}\n"
    assert f"({name} --help lists the flags)" in call(*program, cwd=tmp_path).stderr
