"""Texts in one's own files: in tables, in a folder for each class, or saved by Hugging Face."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gin
import torch
from torch import Tensor

from monosem.core.fields import Fraction, PathField, Seed
from monosem.core.identity import generator
from monosem.data.dataset import SplitName, stratified
from monosem.data.packed import FolderName, PackError, path_hint
from monosem.data.text import TextDataset, Texts

FEW = 5  # names in a message


class TextLine(NamedTuple):
    """One labelled text.

    place: where it is, for messages: 'reviews.csv, line 3'.
    text: as it was written.
    label: the name of its class.
    """

    place: str
    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class LabelledTexts(TextDataset):
    """Texts whose classes have names; the test split is given, or a share of the training texts.

    share: of the texts of every class that is kept for the test, where the split is made.
    seed: of that split.
    """

    share: Fraction = 0.2
    seed: Seed = 0

    def lines(self, split: SplitName) -> list[TextLine]:
        """The texts of a split, or of both where it is made. Raises PackError."""
        raise NotImplementedError

    @property
    def is_split(self) -> bool:
        """Whether the files say which texts are for the test."""
        raise NotImplementedError

    def options(self, split: SplitName) -> tuple[object, ...]:
        return () if self.is_split else (split, self.share, self.seed)

    def read(self, split: SplitName) -> Texts:
        training = self.lines("train")
        names = class_names(training)
        if not self.is_split:
            return self._made(training, names, split)
        return labelled(training if split == "train" else self.lines("test"), names)

    def _made(self, lines: Sequence[TextLine], names: Sequence[str], split: SplitName) -> Texts:
        everything = labelled(lines, names)
        rows = self.rows(torch.tensor(everything.labels), split)
        return Texts(
            [everything.texts[row] for row in rows],
            [everything.labels[row] for row in rows],
            everything.class_names,
        )

    def rows(self, labels: Tensor, split: SplitName) -> list[int]:
        """Which of all texts are in a split that is made, ascending. labels: (n,) of all."""
        n = len(labels)
        held_out = round(self.share * n)
        if not 0 < held_out < n:
            self.refuse("share", f"must leave texts in both splits of {n}, got {self.share:g}")
        order = stratified(labels, generator("split", self.seed))
        chosen = order[:held_out] if split == "test" else order[held_out:]
        rows: list[int] = chosen.sort().values.tolist()
        return rows


def class_names(lines: Sequence[TextLine]) -> tuple[str, ...]:
    """The classes in the order of their labels: whole numbers by size, others by the alphabet.

    Raises PackError where there are fewer than 2.
    """
    names = {line.label for line in lines}
    if len(names) == 1:
        raise PackError(
            f"must have 2 classes or more; from {lines[0].place} to {lines[-1].place} "
            f"there is only {lines[0].label!r}"
        )
    is_whole = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if is_whole else 0, name)))


def labelled(lines: Sequence[TextLine], names: Sequence[str]) -> Texts:
    """Texts with the numbers of their classes. Raises PackError where a class is unknown."""
    label_of = {name: label for label, name in enumerate(names)}
    for line in lines:
        if line.label not in label_of:
            rest = len(names) - FEW
            known = ", ".join(names[:FEW]) + (f" and {rest} more" if rest > 0 else "")
            raise PackError(
                f"must have labels of the training split ({known}); {line.place} has {line.label!r}"
            )
    return Texts(
        [line.text for line in lines], [label_of[line.label] for line in lines], tuple(names)
    )


def checked(lines: Iterator[TextLine], where: str) -> list[TextLine]:
    """The lines, all with a text and a label, one or more. Raises PackError."""
    checked_lines = []
    for line in lines:
        if not line.text.strip():
            raise PackError(f"must have a text everywhere; {line.place} has none")
        if not line.label.strip():
            raise PackError(f"must have a label everywhere; {line.place} has none")
        checked_lines.append(line)
    if not checked_lines:
        raise PackError(f"must hold texts; {where} holds none")
    return checked_lines


def decoded(data: bytes, path: str, encoding: str = "utf-8-sig") -> str:
    """What a file says. Raises PackError, with the line, where it is not in that encoding."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PackError(
            f"must be {encoding.removesuffix('-sig')}; {path}, line {line} is not: byte "
            f"0x{data[error.start]:02x} ({error.reason})"
        ) from None


# Tables


@gin.register
@dataclass(frozen=True, kw_only=True)
class TextFile(LabelledTexts):
    """Texts in a table: .csv, .tsv (with a first line of names, as csv quotes) or .jsonl (UTF-8).

    train: the file.
    test: the file of the test split; None takes `share` of the texts of `train`, by class.
    text: the name of the column of texts.
    label: the name of the column of labels. Whole numbers are in their order, others in that of
        the alphabet.
    """

    train: PathField
    test: PathField | None = None
    text: str = "text"
    label: str = "label"

    def origin(self, split: SplitName) -> str:
        return "test" if split == "test" and self.test else "train"

    @property
    def is_split(self) -> bool:
        return self.test is not None

    def files(self, split: SplitName) -> Sequence[str]:
        # labels are numbered by the training split
        return [self.train] if split == "train" or self.test is None else [self.train, self.test]

    def options(self, split: SplitName) -> tuple[object, ...]:
        return (self.text, self.label, *super().options(split))

    def lines(self, split: SplitName) -> list[TextLine]:
        path: str = getattr(self, self.origin(split))
        suffix = Path(path).suffix.lower()
        if suffix not in READERS:
            raise PackError(f"must be one of {', '.join(READERS)}, got {path}")
        text = decoded(Path(path).read_bytes(), path)
        return checked(self._lines(READERS[suffix](text, path), path), path)

    def _lines(self, rows: Iterator[tuple[int, dict[str, Any]]], path: str) -> Iterator[TextLine]:
        for number, row in rows:
            place = f"{path}, line {number}"
            for field in ("text", "label"):
                name = getattr(self, field)
                if name not in row:
                    columns = ", ".join(map(str, row))
                    self.refuse(field, f"must be a column, got {name!r}; {place} has {columns}")
            text, label = row[self.text], row[self.label]
            yield TextLine(place, as_word(text), as_word(label))


def as_word(value: object) -> str:
    """A cell as a string; '' where there is nothing."""
    return "" if value is None else str(value)


def _read_table(delimiter: str) -> Callable[[str, str], Iterator[tuple[int, dict[str, Any]]]]:
    def read(text: str, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        line = 1
        try:
            names = next(reader, [])
            line = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise PackError(
                        f"must have {len(names)} cells in every row; {path}, line {line} has "
                        f"{len(cells)}"
                    )
                if cells:
                    yield line, dict(zip(names, cells, strict=True))
                line = reader.line_num + 1  # a cell in quotes may be of several lines
        except csv.Error as error:
            raise PackError(f"holds no row in {path}, line {line}: {error}") from None

    return read


def _read_json_lines(text: str, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise PackError(f"holds no JSON in {path}, line {number}: {error}") from None
        if not isinstance(row, dict):
            raise PackError(f"must hold an object in every line; {path}, line {number} has none")
        yield number, row


READERS = {
    ".csv": _read_table(","),
    ".tsv": _read_table("\t"),
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
}


# Folders


@dataclass(frozen=True, kw_only=True)
class TextsInFolder(LabelledTexts):
    """Texts in a folder, with the splits in folders inside.

    folder: holds the folders of the splits.
    train: the name of the folder of the training split.
    test: that of the test split; None takes `share` of the training texts, by class.
    """

    folder: PathField
    train: FolderName = "train"
    test: FolderName | None = "test"

    @property
    def is_split(self) -> bool:
        return self.test is not None

    def place(self, split: SplitName) -> Path:
        """The folder of a split."""
        field = "test" if split == "test" and self.test else "train"
        place = Path(self.folder, getattr(self, field))
        if not place.is_dir():
            name = getattr(self, field)
            self.refuse(field, f"must be a folder in {self.folder}, got {name!r}{path_hint(place)}")
        return place

    def places(self, split: SplitName) -> list[Path]:
        """The folders that a split is read from: the training split numbers the labels."""
        return list(dict.fromkeys((self.place("train"), self.place(split))))

    def options(self, split: SplitName) -> tuple[object, ...]:
        return (self.place(split).name, *super().options(split))


@gin.register
@dataclass(frozen=True, kw_only=True)
class TextFolders(TextsInFolder):
    """Texts in files, <folder>/<split>/<class>/**, one a file, as 20 newsgroups and IMDB have them.

    encoding: of the files, as Python calls it. 20 newsgroups has latin-1.
    """

    encoding: str = "utf-8"

    def validate(self) -> None:
        try:
            "".encode(self.encoding)
        except LookupError:
            self.refuse("encoding", f"must be known to Python, as utf-8, got {self.encoding!r}")

    def files(self, split: SplitName) -> Sequence[str]:
        return [str(path) for place in self.places(split) for _, path in _files_of(place)]

    def options(self, split: SplitName) -> tuple[object, ...]:
        return (self.encoding, *super().options(split))

    def lines(self, split: SplitName) -> list[TextLine]:
        place = self.place(split)
        return checked(self._lines(place), str(place))

    def _lines(self, place: Path) -> Iterator[TextLine]:
        for name, path in _files_of(place):
            text = decoded(path.read_bytes(), str(path), self.encoding)
            yield TextLine(str(path), text, name)


def _files_of(place: Path) -> Iterator[tuple[str, Path]]:
    """All files in the folders of the classes, hidden ones left out, and the class of each."""
    for folder in sorted(path for path in place.iterdir() if path.is_dir()):
        for path in sorted(folder.rglob("[!.]*")):
            if path.is_file():
                yield folder.name, path


@gin.register
@dataclass(frozen=True, kw_only=True)
class SavedTexts(TextsInFolder):
    """A dataset that Hugging Face's datasets has saved, by `DatasetDict.save_to_disk`.

    text: the name of the column of texts.
    label: the name of the column of labels; the names of a ClassLabel are taken.
    """

    text: str = "text"
    label: str = "label"

    def files(self, split: SplitName) -> Sequence[str]:
        places = self.places(split)
        return [str(path) for place in places for path in sorted(place.glob("[!.]*"))]

    def options(self, split: SplitName) -> tuple[object, ...]:
        return (self.text, self.label, *super().options(split))

    def lines(self, split: SplitName) -> list[TextLine]:
        place = self.place(split)
        return checked(self._lines(place), str(place))

    def _lines(self, place: Path) -> Iterator[TextLine]:
        table = _load_saved(place)
        for field in ("text", "label"):
            name = getattr(self, field)
            if name not in table.column_names:
                columns = ", ".join(table.column_names)
                self.refuse(field, f"must be a column, got {name!r}; {place} has {columns}")
        names = getattr(table.features[self.label], "names", None)
        for number, row in enumerate(table):
            label = row[self.label]
            named = names[label] if names and label is not None and label >= 0 else label
            yield TextLine(f"{place}, row {number}", as_word(row[self.text]), as_word(named))


def _load_saved(place: Path) -> Any:
    """Raises PackError."""
    try:
        from datasets import Dataset, load_from_disk
    except ImportError:
        raise PackError(
            f"was saved by datasets, {place}, which it needs: pip install datasets"
        ) from None
    try:
        table = load_from_disk(str(place))
    except Exception as error:  # of all kinds, by what is wrong with the files
        reason = f"{error} ".splitlines()[0].strip()
        raise PackError(f"must hold a saved dataset; {place} cannot be read: {reason}") from None
    if not isinstance(table, Dataset):
        raise PackError(f"must hold one split in {place}, got {type(table).__name__}")
    return table
