"""Questions about monosem itself, and flags of how: words, refusals, a script for a shell."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from conftest import here

from monosem.cli.about import completion
from monosem.cli.flags import SHELLS, parse

pytestmark = pytest.mark.usefixtures("in_root")


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words, as the script has it."""
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _monosem"
    line = f'{script}\n{ask}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    out = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    return out.stdout.split()


def test_a_class_a_kind_and_all_of_it_are_described(capsys):
    one = here(capsys, "--describe", "TopK")
    assert one.returncode == 0 and one.stdout.startswith("TopK (sparsifier)")
    assert "k: whole number, 1 or more; default 256" in one.stdout
    kind = here(capsys, "--describe", "attack")
    assert "PGD" in kind.stdout and "TopK" not in kind.stdout
    everything = here(capsys, "--describe")
    assert "PGD" in everything.stdout and "TopK" in everything.stdout


def test_bash_completes_flags_choices_files_and_classes():
    script = completion("bash")
    assert {"--gin", "--grid"} <= set(complete(script, "monosem", "--g"))
    assert complete(script, "monosem", "--completion", "z") == ["zsh"]
    assert "gin/ncl.gin" in complete(script, "monosem", "--gin", "gin/nc")
    assert complete(script, "monosem", "--describe", "MultiT") == ["MultiTopK"]
    assert complete(script, "monosem", "--gin", "x.gin", "--quie") == ["--quiet"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_that_its_shell_takes(shell):
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    out = subprocess.run([shell, "-n"], input=completion(shell), text=True, capture_output=True)
    assert (out.returncode, out.stderr) == (0, "")


WRONG = [
    (["--describe", "LabelNoize"], "there is nothing called LabelNoize; did you mean LabelNoise?"),
    (["--describe", "TopK", "--gin", "gin/ncl.gin"], "--describe goes with no other flag"),
    (["--completion", "fish"], "invalid choice: 'fish'"),
    (["--grid", "TopK.k = (2, 4)"], "--gin FILE is needed"),
    (["--gin", "gin/ncl.gin", "--seeds", "0"], "must be above 0, got 0"),
    (["--gin", "gin/ncl.gin", "--device", "tpu"], "must be cpu, cuda or cuda:N, got 'tpu'"),
    (["--gin", "gin/ncl.gin", "--threads", "x"], "invalid whole number value: 'x'"),
    (["--gin", "gin/ncl.gin", "--quiet", "--verbose"], "not allowed with argument --quiet"),
    (
        ["--gin", "gin/ncl.gin", "--grid", "Pretrain.epochs = (1,)", "--threads", "2"],
        "--threads goes with one experiment",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, capsys):
    out = here(capsys, *arguments)
    assert out.returncode == 2 and said in out.stderr, out.stderr
    assert out.stdout == "" and out.stderr.count("\n") == 1


def test_a_gpu_that_is_not_there_is_refused_before_any_work(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    out = here(capsys, "--gin", "gin/ncl.gin", "--device", "cuda:1", "--store", tmp_path / "store")
    assert out.returncode == 2 and not (tmp_path / "store").exists()
    assert "--device cuda:1: torch sees 1 GPU, counted from 0 here" in out.stderr


def test_a_device_is_told_to_this_process_and_to_workers(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "MONOSEM_DEVICE", "")
    monkeypatch.chdir(tmp_path)
    out = here(capsys, "--gin", "ncl.gin", "--device", "cpu", "--plan")
    assert out.returncode == 0 and os.environ["MONOSEM_DEVICE"] == "cpu"
    from monosem.core.device import DEVICE
    from monosem.running.tune import PASSED_ON

    assert DEVICE in PASSED_ON


def test_flags_that_go_with_one_another_are_read():
    flags = parse(["--gin", "a.gin", "--grid", "TopK.k = (2,)", "--seeds", "5", "--quiet"], "x")
    assert (flags.grids, flags.seeds, flags.quiet) == (["TopK.k = (2,)"], 5, True)
