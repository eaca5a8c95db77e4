"""Tiny random language models and judges; small files in the formats of SST-2, Dolly and MMLU."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
from tiny_text import WORDS, tiny_llama, write_tokenizer

from monosem.data.tokens import Tokenizer
from monosem.datasets.text_files import TextFile
from monosem.language.models import CausalTransformer
from monosem.language.prompts import Dolly, LabelWords
from monosem.language.tuning import LanguageTuning
from monosem.learning.adapters import LoRA, MonoLoRA
from monosem.learning.optimizers import Adam, Constant

VOCABULARY = [*WORDS, "negative", "positive", "review", "answer", "yes", "no", "b", "c", "d", ":"]
TARGETS = ("q_proj", "v_proj")
LORA = LoRA(targets=TARGETS)
MONO = MonoLoRA(targets=TARGETS)
PROMPT = "review : {text} answer :"


def llama(folder: Path, seed: int = 0, **changes: object) -> Path:
    """Llama of 2 layers of 32 features."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 128}
    return tiny_llama(folder, seed, VOCABULARY, **{**sizes, **changes})


def classifier(folder: Path, **changes: object) -> Path:
    """BERT that tells safe from unsafe, its weights drawn."""
    from transformers import BertConfig, BertForSequenceClassification

    write_tokenizer(folder, VOCABULARY)
    config = BertConfig(
        vocab_size=len(VOCABULARY) + 8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        initializer_range=0.3,
        id2label={0: "safe", 1: "unsafe"},
        label2id={"safe": 0, "unsafe": 1},
        **changes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def said(index: int, words: int) -> str:
    """Words that depend on a number alone."""
    draw = torch.Generator().manual_seed(index)
    return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (words,), generator=draw).tolist())


def write_sst2(folder: Path, train: int = 40, test: int = 12) -> None:
    """train.tsv and dev.tsv as GLUE has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, first in (("train", train, 0), ("dev", test, 1000)):
        lines = ["sentence\tlabel"]
        for index in range(count):
            mood = "good great" if index % 2 else "bad awful"
            lines.append(f"{said(first + index, 2 + index % 7)} {mood} \t{index % 2}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")


def write_dolly(path: Path, rows: int = 40) -> str:
    """As databricks-dolly-15k.jsonl has them; every third row has a context."""
    lines = []
    for index in range(rows):
        row = {
            "instruction": said(2000 + index, 3 + index % 5),
            "context": "" if index % 3 else said(3000 + index, 9),
            "response": said(4000 + index, 1 + index % 6),
            "category": ("open_qa", "closed_qa", "summarization")[index % 3],
        }
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def write_prompts(path: Path, prompts: int = 9) -> str:
    lines = [
        json.dumps(
            {"prompt": said(5000 + index, 2 + index), "category": ("hate", "danger")[index % 2]}
        )
        for index in range(prompts)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def write_questions(path: Path, questions: int = 10) -> str:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "A", "B", "C", "D", "answer", "subject"])
        for index in range(questions):
            choices = [said(6000 + 10 * index + letter, 1 + letter) for letter in range(4)]
            subject = ("law", "films")[index % 2]
            table.writerow([said(7000 + index, 4), *choices, "ABCD"[index % 4], subject])
    return str(path)


def write_home(home: Path) -> Path:
    """Everything that gin/llama/ asks for, in a folder."""
    llama(home / "llama")
    llama(home / "guard", seed=3)
    classifier(home / "classifier")
    write_sst2(home / "SST-2")
    write_dolly(home / "dolly.jsonl")
    write_prompts(home / "prompts.jsonl")
    write_questions(home / "mmlu.csv")
    return home


def sst2(home: Path, **fields: object) -> LabelWords:
    data = TextFile(
        train=str(home / "SST-2" / "train.tsv"),
        test=str(home / "SST-2" / "dev.tsv"),
        text="sentence",
        tokenizer=Tokenizer(str(home / "llama")),
        length=32,
    )
    return LabelWords(data=data, **{"prompt": PROMPT, **fields})


def dolly(home: Path, **fields: object) -> Dolly:
    return Dolly(file=str(home / "dolly.jsonl"), **{"share": 0.3, **fields})


def tuning(home: Path, **fields: object) -> LanguageTuning:
    """A tuning of a second."""
    standard: dict[str, object] = {
        "model": CausalTransformer(str(home / "llama")),
        "adapter": LORA,
        "texts": sst2(home),
        "length": 64,
        "optimizer": Adam(lr=0.01),
        "schedule": Constant(),
        "epochs": 2,
        "batch_size": 8,
    }
    return LanguageTuning(**{**standard, **fields})


class JobOf:
    """A job without a store: artifacts of upstream stages are computed when they are asked for."""

    def __init__(self, saved: dict | None = None, stop_after: int | None = None):
        self.saved, self.stop_after = saved, stop_after
        self.logged: list[dict[str, float]] = []
        self.made: dict[object, dict] = {}

    def get(self, stage):
        if stage not in self.made:
            self.made[stage] = stage.run(JobOf())
        return self.made[stage]

    def log(self, step, of, **scalars):
        self.logged.append(scalars)

    def on_step(self, step, of, images, loss):
        pass

    def save(self, state):
        import copy

        self.saved = copy.deepcopy(state)
        if self.stop_after is not None and state["epoch"] >= self.stop_after:
            raise KeyboardInterrupt

    def restore(self):
        return self.saved
