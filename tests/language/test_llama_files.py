"""gin/llama/ on tiny random models and small files: whole runs, and what bad input gets."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest
from conftest import ROOT, here
from tiny_language import PROMPT, write_home
from tiny_text import tiny_bert

from monosem.checkpoints.transformer_folder import CHECKPOINTING, HALF, SHARD
from monosem.core.stage import key
from monosem.results.rows import read_table
from monosem.robustness.shift import say_once
from monosem.specs import load as loading
from monosem.specs.load import load

pytest.importorskip("transformers", reason="the extra 'language'")
pytest.importorskip("rouge_score", reason="the extra 'language'")

FILES = [f"{kind}_{task}" for kind in ("base", "lora", "monolora") for task in ("sst2", "dolly")]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    say_once.cache_clear()  # what another test has been told
    for flag in (HALF, CHECKPOINTING, SHARD):
        monkeypatch.setenv(flag, "")


LLAMA = {
    "Harm.length": 64,
    "Harm.new_tokens": 4,
    "NextWord.length": 64,
    "LanguageTuning.length": 64,
    "LanguageTuning.epochs": 2,
    "LanguageTuning.batch_size": 8,
    "PromptFile.prompt": "{text}",
    "GuardModel.prompt": "{prompt} . {answer} . {rule} . answer :",
    "LabelWords.prompt": PROMPT,
    "Generation.length": 64,
    "Generation.new_tokens": 4,
    "TextFile.length": 32,
    "ChoiceFile.prompt": "{question} b {A} {B} {C} {D} answer :",
    "Dolly.share": 0.3,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_home(tmp_path_factory.mktemp("llama"))


def bindings(home, file, **changes):
    """What makes a file of gin/llama/ tiny."""
    places = {
        "CausalTransformer.weights": home / "llama",
        "Tokenizer.folder": home / "llama",
        "GuardModel.weights": home / "guard",
        "HarmClassifier.weights": home / "classifier",
        "PromptFile.file": home / "prompts.jsonl",
        "ChoiceFile.file": home / "mmlu.csv",
        "TextFile.train": home / "SST-2" / "train.tsv",
        "TextFile.test": home / "SST-2" / "dev.tsv",
        "Dolly.file": home / "dolly.jsonl",
    }
    absent = ("Generation.", "Dolly.")
    if "dolly" in file:
        absent = ("NextWord.", "LabelWords.", "TextFile.", "Tokenizer.")
    if "base" in file:
        absent = (*absent, "LanguageTuning.")
    texts = {name: str(place) for name, place in places.items()}
    values = {**LLAMA, **texts, **changes}
    return [f"{name} = {value!r}" for name, value in values.items() if not name.startswith(absent)]


def command(home, file, place, *more, **changes):
    typed = [part for one in bindings(home, file, **changes) for part in ("--set", one)]
    folders = ("--runs", place / "runs", "--store", place / "store")
    return ("--gin", str(ROOT / "gin" / "llama" / f"{file}.gin"), *typed, *folders, *more)


QUICK = [
    pytest.param(file, marks=[] if file == "monolora_sst2" else pytest.mark.slow) for file in FILES
]


@pytest.mark.parametrize("file", QUICK)
def test_a_file_goes_the_whole_way_from_texts_to_tables(home, tmp_path, capsys, file):
    done = here(capsys, *command(home, file, tmp_path))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / f"llama_{file}"
    rows = read_table(folder / "curves.csv")
    found = {(one.curve, one.point, one.metric) for one in rows}
    task = ("sst2", "all", "label_accuracy") if "sst2" in file else ("dolly", "all", "rouge_l")
    assert {task, ("mmlu", "law", "right_letter"), ("mmlu", "all", "right_letter")} <= found
    for point in ("hate", "danger", "mean"):
        assert {("guard", point, "harm"), ("guard", point, "harm_sexual")} <= found
        assert ("flagged", point, "harm_unsafe") in found
    assert all(one.value >= 0 for one in rows)
    tuned = "base" not in file
    measured = {(one.curve, one.metric) for one in rows if one.metric == "adapter_sparsity"}
    assert len(measured) == (4 if tuned else 0)
    names = {path.name for path in folder.iterdir()}
    assert {f"{task[0]}.png", "guard.png", "flagged.png", "mmlu.png", "summary.md"} <= names
    assert not {"gallery.html", "curves.png"} & names
    summary = (folder / "summary.md").read_text()
    probed = "LanguageTuning of CausalTransformer" if tuned else "CausalTransformer"
    assert f"probed: {probed}\n" in summary
    assert ("adapter_sparsity" in summary) == tuned
    said = re.findall(r"about .* [GM]iB of memory", done.stderr)
    assert len(said) >= 3 + tuned  # tuning, reading and two judges
    again = here(capsys, *command(home, file, tmp_path))
    assert again.returncode == 0 and "0 of" in again.stderr


def test_a_plan_says_what_memory_is_needed_and_computes_nothing(home, tmp_path, capsys):
    done = here(capsys, *command(home, "lora_sst2", tmp_path, "--plan"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"LanguageTuning \(8 x \d+ tokens\): about \S+ [GM]iB of memory", done.stderr)
    assert "to do" in done.stdout and "LanguageTuning" in done.stdout
    assert not (tmp_path / "store").exists()
    flags = ("--half", "--checkpointing", "--shard")
    halved = here(capsys, *command(home, "lora_sst2", tmp_path, "--plan", *flags))
    assert halved.stdout == done.stdout  # the same keys


def test_the_files_are_the_paper_s_setting(home, monkeypatch):
    monkeypatch.setattr(loading, "closure", lambda stages: [])
    for file in FILES:
        if "base" in file:
            continue
        own = [
            one
            for one in bindings(home, file)
            if not one.startswith(("LanguageTuning.epochs", "LanguageTuning.batch"))
        ]
        tuned = load([f"gin/llama/{file}.gin"], own).experiment.curves[0].model
        adapter = tuned.adapter
        assert type(adapter).__name__.lower() == file.split("_")[0]
        assert (adapter.rank, adapter.alpha, adapter.dropout) == (8, 4.0, 0.1)
        assert adapter.targets == ("q_proj", "v_proj")
        expected = (20, 16) if "sst2" in file else (1, 4)
        assert (tuned.epochs, tuned.batch_size) == expected
        assert (tuned.examples, tuned.optimizer.lr) == (5000, 1e-4)


def refused(home, tmp_path, capsys, file, **changes):
    """The one line that bad input gets, before any work."""
    key.cache_clear()
    out = here(capsys, *command(home, file, tmp_path, **changes))
    assert out.returncode == 2, out.stderr
    assert not (tmp_path / "store").exists()
    return out.stderr.strip().splitlines()[-1]


def test_a_layer_or_a_rank_that_cannot_be_is_refused(home, tmp_path, capsys):
    for changes, words in (
        ({"LoRA.targets": ("q_pro",)}, "no linear layer has that name; did you mean 'q_proj'?"),
        ({"LoRA.rank": 40}, "must be at most 32"),
        ({"LanguageTuning.length": 500}, "128 tokens in all, which llama can read"),
        ({"LanguageTuning.batch_size": 64}, "must be at most 40"),
    ):
        assert words in refused(home, tmp_path, capsys, "lora_sst2", **changes)


def test_files_of_prompts_and_questions_are_looked_at(home, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"promt": "a film", "category": "x"}\n')
    (tmp_path / "q.csv").write_text("question,A,B,C,D,answer\nwhat,1,2,3,4,E\n")
    (tmp_path / "d.jsonl").write_text(json.dumps({"instruction": "a", "response": "b"}) + "\n")
    for file, changes, words in (
        (
            "base_sst2",
            {"PromptFile.file": str(tmp_path / "p.jsonl")},
            "must be a column, got 'prompt'; ",
        ),
        ("base_sst2", {"PromptFile.file": str(tmp_path / "none.jsonl")}, "must be there"),
        ("base_sst2", {"ChoiceFile.file": str(tmp_path / "q.csv")}, "got 'subject'"),
        ("base_dolly", {"Dolly.file": str(tmp_path / "d.jsonl")}, "got 'context'"),
        ("base_sst2", {"LabelWords.words": ("bad",)}, "2 or more that differ"),
        ("base_sst2", {"LabelWords.words": ("bad", "blah")}, "that the model knows, got 'blah'"),
        ("base_sst2", {"LabelWords.prompt": "is {it}"}, "must have {text}"),
        ("base_sst2", {"LabelWords.prompt": "{text}"}, "must end in words"),
    ):
        line = refused(home, tmp_path, capsys, file, **changes)
        assert words in line, line
    assert "did you mean promt?" in refused(
        home, tmp_path, capsys, "base_sst2", **{"PromptFile.file": str(tmp_path / "p.jsonl")}
    )


def test_judges_that_know_nothing_of_it_are_refused(home, tmp_path, capsys):
    tiny_bert(tmp_path / "bert")
    for changes, words in (
        ({"GuardModel.yes": "Yep"}, "words that the model knows, got 'Yep'"),
        ({"GuardModel.no": "yes"}, "must begin with tokens that differ"),
        ({"HarmClassifier.labels": ("unsave",)}, "got 'unsave'; did you mean 'unsafe'?"),
        ({"HarmClassifier.weights": str(home / "guard")}, "got LlamaForCausalLM"),
        ({"GuardModel.weights": str(tmp_path / "bert")}, "got BertModel"),
        ({"CausalTransformer.weights": str(tmp_path / "bert")}, "got BertModel"),
        ({"CausalTransformer.weights": str(tmp_path / "none")}, "must be a folder"),
    ):
        line = refused(home, tmp_path, capsys, "base_dolly", **changes)
        assert words in line, line


@pytest.mark.parametrize("package", ["transformers", "rouge_score", "accelerate"])
def test_a_package_that_is_not_there_is_named_with_what_to_install(
    home, tmp_path, capsys, monkeypatch, package
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a)
    )
    key.cache_clear()
    more = ("--shard",) if package == "accelerate" else ()
    out = here(capsys, *command(home, "base_dolly", tmp_path, *more))
    assert out.returncode == 2
    assert f"pip install {package.replace('_', '-')}" in out.stderr.strip().splitlines()[-1]
