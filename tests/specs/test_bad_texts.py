"""What a person who mistypes something about texts is told: one line, exit 2, before any work."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from conftest import here

pytest.importorskip("transformers")

from tiny_text import WORDS, tiny_bert, write_tokenizer, write_vader

from monosem.datasets.published_texts import FILES

pytestmark = pytest.mark.usefixtures("in_root")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, folders that are none, an archive and tables."""
    home = tmp_path_factory.mktemp("bad texts")
    model = tiny_bert(home / "bert")
    write_vader(home / "vader.tar.gz", domains=FILES.values())
    (home / "broken.tar.gz").write_bytes(b"no archive")
    (home / "empty").mkdir()
    write_tokenizer(home / "other", WORDS[1:])
    for name, missing in (("no_tokenizer", "tokenizer*"), ("no_weights", "*.safetensors")):
        shutil.copytree(model, home / name)
        for path in (home / name).glob(missing):
            path.unlink()
    shutil.copytree(model, home / "t5")
    (home / "t5" / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (home / "column.csv").write_text("words,label\na film,x\n")
    (home / "latin.csv").write_bytes(b"text,label\na film,x\ncaf\xe9,y\n")
    (home / "empty.csv").write_text("text,label\na film,x\n ,y\n")
    (home / "one.csv").write_text("text,label\na film,x\na story,x\n")
    return home


def told(capsys, home, file, *changes):
    """What is said about a file of gin/text on the small model, with these changes."""
    bindings = [
        "MODEL = '{home}/bert'",
        "VaderReviews.archive = '{home}/vader.tar.gz'",
        "VaderReviews.packs = '{home}/packs'",
        "VaderReviews.length = 32",
        "few_shot/Curve.severities = (2, 4)",
        f"{'LinearProbe' if 'head' in file else 'FineTune'}.batch_size = 4",
        *changes,
    ]
    sets = [word for text in bindings for word in ("--set", text.replace("{home}", str(home)))]
    folders = ["--store", home / "store", "--runs", home / "runs"]
    out = here(capsys, "--gin", f"gin/text/{file}.gin", *sets, *folders)
    assert out.returncode == 2 and not out.stdout
    assert not (home / "store").exists() and not (home / "runs").exists()
    packing = "packing "  # of texts, which is before any work as well
    (line,) = [line for line in out.stderr.splitlines() if not line.startswith(packing)]
    return line


MODELS = [
    ("MODEL = '{home}/brt'", r"Tokenizer.folder must be a folder with a tokenizer, got .*brt"),
    ("MODEL = 'package:no_such/model'", r"got package:no_such/model; try: pip install no-such"),
    ("MODEL = '{home}/empty'", r"must hold a tokenizer .*; .*empty holds nothing"),
    ("MODEL = '{home}/no_tokenizer'", r"Tokenizer.folder must hold a tokenizer .* holds config"),
    ("MODEL = '{home}/no_weights'", r"TextEncoder.weights must hold the weights, \*.safetensors"),
    ("MODEL = '{home}/t5'", r"must be an encoder or a decoder of tokens, .*, got t5"),
    ("Tokenizer.folder = '{home}/other'", r"Curve.data must have the tokenizer of TextEncoder"),
    ("VaderReviews.length = 64", r"must have length of at most 40, as TextEncoder takes, got 64"),
    ("TextEncoder.layer = 9", r"TextEncoder.layer must be from 0, the embeddings, to 3, .* got 9"),
]
ARCHIVES = [
    ("VaderReviews.archive = '{home}/vadr.tar.gz'", r"did you mean .*vader.tar.gz.*; pip download"),
    ("VaderReviews.archive = '{home}/broken.tar.gz'", r"as it: file could not be opened \S+ \("),
    ("VaderReviews.domain = 'movies'", r"must be one of 'films', 'products', .*, got 'movies'"),
    ("label_noise/Curve.corruption = @GaussianNoise()", r"Curve.data must be of images"),
    ("Experiment.reference_encoder = None", r"must be set: its default, the pixels, is for images"),
]


@pytest.mark.parametrize(("change", "line"), [*MODELS, *ARCHIVES])
def test_a_mistake_about_a_model_or_an_archive_is_one_line(capsys, home, change, line):
    said = told(capsys, home, "head", change)
    assert re.search(line, said), said


TABLES = [
    ("column", r"TextFile.text must be a column, got 'text'; .*, line 2 has words, label"),
    ("latin", r"TextFile.train must be utf-8; .*latin.csv, line 3 is not: byte 0xe9"),
    ("empty", r"must have a text everywhere; .*empty.csv, line 3 has none"),
    ("one", r"must have 2 classes or more; from .*, line 2 to .*, line 3 there is only 'x'"),
]


@pytest.mark.parametrize(("table", "line"), TABLES)
def test_a_mistake_in_a_table_is_told_with_its_line(tmp_path, capsys, home, table, line):
    settings = tmp_path / "own.gin"
    settings.write_text(
        "include 'gin/text/head.gin'\n"
        "Experiment.curves = (@few_shot/Curve(),)\n"
        "Curve.data = @TextFile()\n"
        "TextFile.tokenizer = @Tokenizer()\n"
        f"TextFile.packs = '{home}/packs'\n"
        f"TextFile.train = '{home}/{table}.csv'\n"
        f"MODEL = '{home}/bert'\n"
    )
    out = here(capsys, "--gin", settings, "--plan")
    assert out.returncode == 2
    assert re.search(line, out.stderr), out.stderr
    assert len(out.stderr.splitlines()) == 1


ADAPTERS = [
    ("lora", "LoRA.targets = ('querry',)", "LoRA.targets has 'querry', .*did you mean 'query'"),
    ("lora", "LoRA.rank = 17", "LoRA.rank must be at most 16, the smaller side of encoder.layer.0"),
    ("monolora", "MonoLoRA.up = @Zeros()", "MonoLoRA.up must not be Zeros.*has no gradient"),
]


@pytest.mark.parametrize(("file", "change", "line"), ADAPTERS)
def test_a_mistake_about_an_adapter_is_one_line(capsys, home, file, change, line):
    assert re.search(line, told(capsys, home, file, change))
