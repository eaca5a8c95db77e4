"""The public API: its names, that it is light, and that the code of docs/python.md runs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT, TINY

import monosem
from monosem.specs.errors import SpecError

PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def python(code: str) -> str:
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return out.stdout.strip()


@pytest.mark.parametrize("name", monosem.__all__)
def test_every_public_name_is_there(name):
    assert getattr(monosem, name).__name__ == name
    assert name in dir(monosem)


def test_type_checkers_see_the_names_that_python_finds():
    tree = ast.parse((ROOT / "monosem" / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    homes = {
        alias.name: node.module.removeprefix("monosem.")
        for node in imports
        for alias in node.names
        if node.module.startswith("monosem.")
    }
    assert homes == monosem._HOMES and sorted(homes) == sorted(monosem.__all__)


def test_importing_monosem_imports_nothing_heavy():
    heavy = "{'torch', 'ray', 'gin', 'matplotlib', 'numpy', 'pandas'}"
    assert python(f"import sys, monosem; print({heavy} & set(sys.modules))") == "set()"


def test_what_is_no_name_of_monosem_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'monosem' has no attribute 'Corruptoin'"):
        monosem.Corruptoin  # noqa: B018


def test_one_file_and_one_binding_need_no_list():
    spec = monosem.load(ROOT / "gin" / "ncl.gin", "Pretrain.epochs = 3")
    assert spec == monosem.load([str(ROOT / "gin" / "ncl.gin")], ["Pretrain.epochs = 3"])


def test_a_sweep_is_not_loaded_as_an_experiment():
    with pytest.raises(SpecError, match="describe a sweep.*: run it with monosem --gin FILE"):
        monosem.load("seeds.gin")


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path):
    """All blocks one after the other in an empty folder, as in a notebook, with small networks."""
    tiny = [line for line in TINY.splitlines() if line and "epochs" not in line]
    small = [*tiny, "LinearProbe.epochs = 1", "Pretrain.epochs = 1"]
    code = "\n".join(BLOCKS).replace('["Pretrain.epochs = 20"]', repr(small))
    facts = "print(sorted(curves), tuple(features.shape) == (len(labels), 16))"
    (tmp_path / "page.py").write_text(f"{code}\n{facts}\n")
    out = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[-1] == "['ncl', 'simclr'] True"
    assert "darkness" in out.stdout
    assert (tmp_path / "store").is_dir() and not (tmp_path / "runs").exists()
