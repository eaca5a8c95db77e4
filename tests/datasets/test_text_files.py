"""Texts in files: what is read, how a split is made, and what is said about bad files."""

from __future__ import annotations

import csv
import json

import pytest
import torch

pytest.importorskip("transformers")

from tiny_text import WORDS, write_tokenizer

from monosem.core.fields import FieldError
from monosem.core.identity import digest
from monosem.data.tokens import Tokenizer
from monosem.datasets.text_files import SavedTexts, TextFile, TextFolders

ROWS = [(f"the film is good {index}", "good") for index in range(12)]
ROWS += [(f'a dull,\n"plot" {index}', "bad") for index in range(8)]


@pytest.fixture
def tokenizer(tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    return Tokenizer(str(tmp_path / "tokenizer"))


def write(path, rows=ROWS):
    if path.suffix == ".jsonl":
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        path.write_text("\n".join(lines))
    else:
        with path.open("w", newline="") as file:
            table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writerows([("text", "label"), *rows])
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_every_format_gives_the_same_texts(tmp_path, tokenizer, suffix):
    path = write(tmp_path / f"a{suffix}")
    data = TextFile(tokenizer=tokenizer, train=path, test=None, length=12)
    assert data.problem() is None
    assert data.class_names == ("bad", "good")
    both = [*data.texts("train"), *data.texts("test")]
    assert sorted(both) == sorted(text for text, _ in ROWS)


def test_a_split_that_is_made_keeps_the_classes_in_their_proportions_and_is_seeded(
    tmp_path, tokenizer
):
    path = write(tmp_path / "a.csv")
    first, again, other = (
        TextFile(tokenizer=tokenizer, train=path, share=0.25, seed=seed, length=12)
        for seed in (0, 0, 1)
    )
    assert first.split("test").labels.bincount().tolist() == [2, 3]
    assert first.split("train").labels.bincount().tolist() == [6, 9]
    assert first.texts("test") == again.texts("test") != other.texts("test")


def test_the_test_file_has_the_labels_of_the_training_file(tmp_path, tokenizer):
    train, test = write(tmp_path / "a.csv"), write(tmp_path / "b.csv", [("the story", "good")])
    data = TextFile(tokenizer=tokenizer, train=train, test=test, length=12)
    assert data.split("test").labels.tolist() == [1]
    assert data.show([0]) == ["the story"]


def test_labels_that_are_whole_numbers_are_in_their_order(tmp_path, tokenizer):
    rows = [(f"good {word}", label) for label in (10, 9, 2) for word in ("film", "plot")]
    path = write(tmp_path / "a.csv", rows)
    data = TextFile(tokenizer=tokenizer, train=path, share=0.5, length=12)
    assert data.class_names == ("2", "9", "10")


def test_the_key_has_the_content_of_the_files_and_not_their_place(tmp_path, tokenizer):
    (tmp_path / "other").mkdir()
    here, there = write(tmp_path / "a.csv"), write(tmp_path / "other" / "b.csv")
    changed = write(tmp_path / "c.csv", [("awful", "bad"), *ROWS])
    keys = [
        digest(TextFile(tokenizer=tokenizer, train=path, length=12))
        for path in (here, there, changed)
    ]
    assert keys[0] == keys[1] != keys[2]


BAD = {
    "broken encoding": (b"text,label\nfine,a\nna\xefve,b\n", r"a.csv, line 3 is not: byte 0xef"),
    "empty text": (b"text,label\nfine,a\n  ,b\n", r"a text everywhere; .*line 3 has none"),
    "empty label": (b"text,label\nfine,\n", r"must have a label everywhere; .*line 2 has none"),
    "nothing": (b"text,label\n", r"must hold texts; .*a.csv holds none"),
    "one class": (b"text,label\nfine,a\nbad,a\n", r"2 classes or more; .*line 2 to .*line 3.*'a'"),
    "cells": (b"text,label\nfine,a\nbad,very,b\n", r"2 cells in every row; .*line 3 has 3"),
    "quotes": (b'text,label\nfine,a\n"bad,b\n', r"holds no row in .*, line 3"),
    "columns": (b"texts,label\nfine,a\n", r"text must be a column, got 'text'; .*texts, l"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_refused_with_file_and_line(tmp_path, tokenizer, name):
    content, message = BAD[name]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(FieldError, match=message):
        TextFile(tokenizer=tokenizer, train=str(tmp_path / "a.csv")).problem()


def test_an_unknown_label_of_the_test_file_is_refused_with_file_and_line(tmp_path, tokenizer):
    train = write(tmp_path / "a.csv")
    test = write(tmp_path / "b.jsonl", [("it", "good"), ("it", "bda")])
    message = r"TextFile.test .*\(bad, good\); .*b.jsonl, line 2 has 'bda'"
    with pytest.raises(FieldError, match=message):
        TextFile(tokenizer=tokenizer, train=train, test=test).problem()


def test_a_line_that_is_no_json_is_refused(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text('{"text": "it", "label": 1}\n{"text"\n')
    with pytest.raises(FieldError, match=r"no JSON in .*a.jsonl, line 2"):
        TextFile(tokenizer=tokenizer, train=str(tmp_path / "a.jsonl")).problem()


def test_a_file_of_another_kind_or_that_is_not_there_is_refused(tmp_path, tokenizer):
    write(tmp_path / "a.csv")
    with pytest.raises(FieldError, match=r"did you mean .*a.csv"):
        TextFile(tokenizer=tokenizer, train=str(tmp_path / "a.cvs")).problem()
    (tmp_path / "a.txt").write_text("good")
    with pytest.raises(FieldError, match=r"must be one of .csv, .tsv, .jsonl"):
        TextFile(tokenizer=tokenizer, train=str(tmp_path / "a.txt")).problem()


# Folders


def write_folders(folder, splits=("train", "test"), encoding="utf-8"):
    for split in splits:
        for name in ("bad", "good"):
            (folder / split / name).mkdir(parents=True)
            for index in range(5):
                text = f"{'the' if split == 'train' else 'an'} {name} café {index}"
                (folder / split / name / f"{index}").write_bytes(text.encode(encoding))
    return str(folder)


def test_a_folder_is_a_class_and_a_file_is_a_text(tmp_path, tokenizer):
    data = TextFolders(tokenizer=tokenizer, folder=write_folders(tmp_path / "a"), length=12)
    assert data.problem() is None and data.class_names == ("bad", "good")
    assert data.split("train").labels.tolist() == [0] * 5 + [1] * 5
    assert data.show([6]) == ["an good café 1"]


def test_folders_without_a_test_split_are_split(tmp_path, tokenizer):
    folder = write_folders(tmp_path / "a", ["train"])
    data = TextFolders(tokenizer=tokenizer, folder=folder, test=None, share=0.4, length=12)
    assert data.split("test").labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(FieldError, match=r"TextFolders.test must be a folder in .*, got 'test'"):
        TextFolders(tokenizer=tokenizer, folder=folder).problem()


def test_files_of_another_encoding_are_refused_unless_it_is_given(tmp_path, tokenizer):
    folder = write_folders(tmp_path / "a", encoding="latin-1")
    with pytest.raises(FieldError, match=r"must be utf-8; .*train/bad/0, line 1 is not: byte 0xe9"):
        TextFolders(tokenizer=tokenizer, folder=folder, length=12).problem()
    data = TextFolders(tokenizer=tokenizer, folder=folder, length=12, encoding="latin-1")
    assert data.problem() is None and data.show([0]) == ["an bad café 0"]
    with pytest.raises(FieldError, match=r"encoding must be known to Python"):
        TextFolders(tokenizer=tokenizer, folder=folder, encoding="latin-one")


@pytest.mark.filterwarnings("ignore")  # of pickles, while it is saved
def test_a_dataset_that_hugging_face_saved_is_read_from_disk(tmp_path, tokenizer):
    pytest.importorskip("datasets.features")  # there is a folder datasets among the tests
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )

    def table(count):
        texts = [f"it was {WORDS[index]}" for index in range(count)]
        labels = [index % 2 for index in range(count)]
        return datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)

    saved = datasets.DatasetDict(train=table(8), test=table(4))
    saved.save_to_disk(str(tmp_path / "a"))
    data = SavedTexts(tokenizer=tokenizer, folder=str(tmp_path / "a"), length=12)
    assert data.problem() is None and data.class_names == ("bad", "good")
    assert data.split("test").labels.tolist() == [0, 1, 0, 1]
    assert data.show([3]) == [f"it was {WORDS[3]}"]


def test_tokens_are_those_of_the_tokenizer_filled_up_with_padding(tmp_path, tokenizer):
    data = TextFile(tokenizer=tokenizer, train=write(tmp_path / "a.csv"), length=12)
    inputs, texts = data.split("train").inputs, data.texts("train")
    assert inputs.dtype == torch.int32 and inputs.shape == (16, 12)
    for row, tokens in zip(inputs.tolist(), tokenizer.encode(texts, 12), strict=True):
        assert row == tokens + [tokenizer.pad] * (12 - len(tokens))
