"""The house: who may import whom, and that style and types hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

FILES = {path.stem: path for path in (ROOT / "monosem").glob("*.py") if path.stem != "__init__"}
FLOORS = [  # a module imports from floors below its own; `also` names the exceptions
    {"stage", "stats", "files", "page", "main"},
    {"pack"},
    {
        "curves",
        "data",
        "augment",
        "encoders",
        "objectives",
        "sparse",
        "corruptions",
        "metrics",
        "fit",
        "bank",
        "weights",
        "store",
        "sweep",
    },
    {"training", "claim", "cifar", "shapes", "folders", "arrays"},
    {"probes", "pictures", "checkpoint", "toy", "tune"},
    {"portrait", "projections"},
    {"finetune", "evaluation"},
    {"spec", "gallery"},
    {"watch", "report"},
    {"compute"},
]
ALSO = {"bank": {"fit"}}  # for the type of its optimiser


def imported(path, inside_functions=True):
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if inside_functions else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                [f"monosem.{alias.name}" for alias in node.names]
                if node.module == "monosem"
                else [node.module]
            )


def test_every_module_has_a_floor():
    assert set().union(*FLOORS) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_imports_only_go_down(name):
    floor = next(number for number, names in enumerate(FLOORS) if name in names)
    allowed = set().union(*FLOORS[:floor]) | ALSO.get(name, set())
    used = {
        module.split(".")[1]
        for module in imported(FILES[name], inside_functions=name != "main")
        if module.startswith("monosem.")
    }
    assert used <= allowed, f"{name} imports {used - allowed}"


@pytest.mark.parametrize(
    ("library", "homes"),
    [("ray", {"tune"}), ("matplotlib", {"pictures", "watch"}), ("tensorboard", set())],
)
def test_a_library_is_imported_in_its_own_place_only(library, homes):
    users = {
        name
        for name, path in FILES.items()
        if any(module.split(".")[0] == library for module in imported(path))
    }
    assert users == homes


def test_gin_is_parsed_in_one_file_only():
    beyond_register = r"\bgin\.(?!register\b|gin\b)\w+\(|from gin import"
    assert {
        name for name, path in FILES.items() if re.search(beyond_register, path.read_text())
    } == {"spec"}
    assert not list((ROOT / "gin").rglob("__init__.py"))  # or the folder would hide the library


def test_ci_runs_the_readme_s_test_command_word_for_word():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert "pytest" in command and f"```\n{command}\n```" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "tool", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_style_and_types_hold(tool):
    out = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
