"""The house: who may import whom, how README and docs hang together, style and types."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "monosem"
README = (ROOT / "README.md").read_text()
FILES = {
    str(path.relative_to(PACKAGE)): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
}
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def picture() -> list[set[str]]:
    """The floors of the house as README draws them, the lowest first."""
    (lines,) = re.findall(r"^    (core < .*(?:\n     .*)*)$", README, re.MULTILINE)
    floors = re.split(r"\s+< ", lines)
    return [set(floor.split(", ")) for floor in floors]


def room_of(module: str) -> str:
    """The folder, or the file beside the folders, that a module is in."""
    return module.split(".")[1]


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_imported(path: Path) -> set[str]:
    """The files of monosem that a file imports, by their names in FILES."""
    candidates = (name for name in imports_of(path) if name.startswith("monosem."))
    files = ("/".join(name.split(".")[1:]) + ".py" for name in candidates)
    return {name for name in files if name in FILES}


# Folders and directions


def test_the_readme_s_picture_has_every_folder_once():
    rooms = [room for floor in picture() for room in floor]
    assert sorted(rooms) == FOLDERS


@pytest.mark.parametrize("name", FILES)
def test_imports_only_go_down_between_folders(name):
    floors = {room: height for height, floor in enumerate(picture()) for room in floor}
    room = name.split("/")[0].removesuffix(".py")
    for module in imports_of(FILES[name]):
        if module.startswith("monosem.") and room_of(module) != room:
            assert floors[room_of(module)] < floors[room], f"{name} imports {module}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_circle_of_imports_inside_a_folder(folder):
    graph = {
        name: {other for other in modules_imported(path) if other.startswith(f"{folder}/")}
        for name, path in FILES.items()
        if name.startswith(f"{folder}/")
    }
    while graph:
        leaves = {name for name, needed in graph.items() if not needed & graph.keys() - {name}}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: needed for name, needed in graph.items() if name not in leaves}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_small_and_says_what_it_knows(folder):
    files = [name for name in FILES if name.startswith(f"{folder}/")]
    assert 3 <= len(files) <= 9
    opening = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text())) or ""
    assert "know" in opening.lower() and len(opening) > 100


@pytest.mark.parametrize("name", FILES)
def test_a_file_opens_with_what_is_in_it(name):
    opening = ast.get_docstring(ast.parse(FILES[name].read_text())) or ""
    assert len(opening) > 30 and not opening.startswith("TODO")


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("ray", {"running/tune.py"}),
        (
            "matplotlib",
            {
                "figures/answers.py",
                "figures/axis_curves.py",
                "figures/axis_gains.py",
                "figures/bars.py",
                "figures/style.py",
                "figures/curves.py",
                "figures/dimensions.py",
                "figures/paper.py",
                "running/tensorboard.py",
            },
        ),
        ("timm", {"pretrained/timm_models.py"}),
        ("tensorboard", set()),  # torch.utils.tensorboard is what is used
        (
            "torchvision",
            {
                "datasets/cifar.py",
                "datasets/folders.py",
                "datasets/mnist.py",
                "data/packed.py",
                "learning/encoders.py",
                "learning/image_encoders.py",
                "pretrained/torchvision_models.py",
            },
        ),
    ],
)
def test_a_library_is_imported_in_its_own_place_only(library, homes):
    users = {
        name
        for name, path in FILES.items()
        if any(module.split(".")[0] == library for module in imports_of(path))
    }
    assert users <= homes and (users or not homes)


def test_gin_is_parsed_in_specs_only_and_its_private_state_is_read_in_one_file():
    beyond_register = r"\bgin\.(?!register\b)\w+\(|from gin import"
    parsers = {name for name, path in FILES.items() if re.search(beyond_register, path.read_text())}
    assert {name.split("/")[0] for name in parsers} == {"specs"}
    private = [
        name for name, path in FILES.items() if re.search(r"config\._[A-Z]", path.read_text())
    ]
    assert len(private) == 1
    assert not list((ROOT / "gin").rglob("__init__.py"))  # or the folder would hide the library


# README and docs


def test_ci_runs_the_readme_s_test_command_word_for_word():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert "pytest" in command and f"```\n{command}\n```" in README


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def links_of(page: Path) -> set[Path]:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    assert not [target for target in links_of(page) if not target.exists()]


def test_every_page_and_picture_of_the_docs_is_linked_from_the_readme_or_a_page_that_is():
    reached, pending = set(), {ROOT / "README.md"}
    while pending:
        page = pending.pop()
        reached.add(page)
        if page.suffix == ".md":
            pending |= links_of(page) - reached
    assert not [path for path in (ROOT / "docs").iterdir() if path not in reached]


# Style and types


def levels(node: ast.AST) -> int:
    """How many loops of comprehensions lie inside one another, at the most."""
    inside = max(map(levels, ast.iter_child_nodes(node)), default=0)
    return inside + (len(node.generators) if isinstance(node, COMPREHENSIONS) else 0)


@pytest.mark.parametrize("name", FILES)
def test_no_comprehension_goes_over_two_levels(name):
    nodes = ast.walk(ast.parse(FILES[name].read_text()))
    deep = [n.lineno for n in nodes if isinstance(n, COMPREHENSIONS) and levels(n) > 2]
    assert not deep, f"{name}, lines {deep}"


BRANCHES = (
    ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.Assert, ast.comprehension
)  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def complexity(function: ast.AST) -> int:
    """1, and one more for every branch, loop, handler, comprehension and boolean operand."""
    nodes = list(ast.walk(function))
    operands = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return 1 + operands + sum(isinstance(node, BRANCHES) for node in nodes)


@pytest.mark.parametrize("name", FILES)
def test_no_function_is_branched_more_than_eleven_times(name):
    nodes = ast.walk(ast.parse(FILES[name].read_text()))
    functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
    branched = {node.name: complexity(node) for node in functions if complexity(node) > 11}
    assert not branched, f"{name}: {branched}"


def test_no_two_classes_have_one_name():
    names: dict[str, str] = {}
    for file, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                other = names.setdefault(node.name, file)
                assert other == file, f"{node.name} in {other} and {file}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "tool", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_style_and_types_hold(tool):
    out = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
