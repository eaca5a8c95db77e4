"""Published texts, where they lie: vaderSentiment's rated sentences, scikit-learn's newsgroups."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import statistics
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import gin
import torch
from torch import Tensor

from monosem.core.fields import PathField
from monosem.data.dataset import SplitName
from monosem.data.packed import PackError, path_hint
from monosem.datasets.text_files import LabelledTexts, TextLine, checked, decoded, labelled

Domain = Literal["films", "products", "articles", "tweets"]
FILES: dict[Domain, str] = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "articles": "nytEditorialSnippets",
    "tweets": "tweets",
}
INNER = "hutto_ICWSM_2014"  # the archive in the archive, and the folder in that one
NAMES = ("negative", "positive")
ROUNDING = 1e-3  # by which a published mean may miss that of the published ratings


class RatedText(NamedTuple):
    """One text.

    number: its place in the file, from 1 on.
    text: as it was written.
    mean: of all its ratings, -4 to 4; not 0.
    ratings: whole numbers from -4 to 4, of 14 to 99 people; () where they are not known.
    """

    number: int
    text: str
    mean: float
    ratings: tuple[int, ...]


@gin.register
@dataclass(frozen=True, kw_only=True)
class VaderReviews(LabelledTexts):
    """Short texts of four domains, negative or positive (Hutto and Gilbert 2014, ICWSM).

    10,605 sentences of film reviews, 3,708 of product reviews, 5,190 of newspaper articles, 4,200
    tweets. The label is the sign of the mean rating; texts of mean 0 are left out (37, 98, 244, 4).
    Every rating is known, for RaterNoise, but for 199 tweets whose ratings have another mean than
    the one that is published with the text.

    archive: vaderSentiment-3.3.2.tar.gz, as `pip download --no-binary :all: --no-deps
        vaderSentiment==3.3.2` gives it (MIT licence). It is read where it lies.
    domain: the texts that are taken.
    """

    archive: PathField
    domain: Domain = "films"

    @property
    def is_split(self) -> bool:
        return False

    def origin(self, split: SplitName) -> str:
        return "archive"

    def must_exist(self, field: str, path: str) -> None:
        if not Path(path).is_file():
            self.refuse(
                field,
                f"must be there, got {path}{path_hint(Path(path))}; pip download "
                "--no-binary :all: --no-deps vaderSentiment==3.3.2 fetches it",
            )

    def files(self, split: SplitName) -> Sequence[str]:
        return [self.archive]

    def options(self, split: SplitName) -> tuple[object, ...]:
        return (self.domain, *super().options(split))

    def lines(self, split: SplitName) -> list[TextLine]:
        return checked(self._lines(), self.archive)

    def _lines(self) -> Iterator[TextLine]:
        for rated in rated_texts(self.archive, self.domain):
            place = f"{FILES[self.domain]}_GroundTruth.txt of {self.archive}, line {rated.number}"
            yield TextLine(place, rated.text, NAMES[rated.mean > 0])

    def rater_labels(self) -> Tensor:
        self.must_exist("archive", self.archive)
        everything = torch.tensor(labelled(self.lines("train"), NAMES).labels)
        rated = rated_texts(self.archive, self.domain)
        rows = [rated[row].ratings for row in self.rows(everything, "train")]
        most = max(map(len, rows))
        ratings = torch.tensor([[*row, *[0] * (most - len(row))] for row in rows])
        return torch.where(ratings == 0, -1, (ratings > 0).long())


@functools.lru_cache(maxsize=8)
def rated_texts(archive: str, domain: Domain) -> tuple[RatedText, ...]:
    """The texts of a domain whose mean rating is not 0. Raises PackError."""
    texts = _rows(archive, f"{FILES[domain]}_GroundTruth.txt", cells=3)
    ratings = {row[0]: row[3] for row in _rows(archive, f"{FILES[domain]}_anonDataRatings.txt", 4)}
    rated: list[RatedText] = []
    for number, (identity, mean, text) in enumerate(texts, start=1):
        if float(mean) != 0:
            own = tuple(json.loads(ratings.get(identity, "[]")))
            is_same = bool(own) and abs(statistics.fmean(own) - float(mean)) < ROUNDING
            rated.append(RatedText(number, text, float(mean), own if is_same else ()))
    return tuple(rated)


def _rows(archive: str, name: str, cells: int) -> list[list[str]]:
    """The lines of a file in the archive, cut at tabs. Raises PackError."""
    text = decoded(_member(archive, name), f"{name} of {archive}")
    rows = [line.split("\t") for line in text.replace("\r\n", "\n").split("\n") if line]
    for number, row in enumerate(rows, start=1):
        if len(row) != cells:
            raise PackError(
                f"must have {cells} cells in every row of {name}; line {number} has {len(row)}"
            )
    return rows


def _member(archive: str, name: str) -> bytes:
    """A file of the archive in the archive. Raises PackError."""
    try:
        with tarfile.open(archive) as outer:
            inner_name = next(
                (path for path in outer.getnames() if path.endswith(f"/{INNER}.tar.gz")), None
            )
            inner = outer.extractfile(inner_name) if inner_name else None
            if inner is None:
                raise PackError(
                    f"must be the sdist of vaderSentiment 3.3.2; {archive} has no {INNER}.tar.gz"
                )
            with tarfile.open(fileobj=io.BytesIO(inner.read())) as texts:
                file = texts.extractfile(f"{INNER}/{name}")
                assert file is not None, "a file and no folder"
                return file.read()
    except (tarfile.TarError, KeyError, EOFError, zlib.error, OSError) as error:
        reason = f"{error} ".splitlines()[0].strip(" :")  # tarfile tells every way that it tried
        raise PackError(
            f"must be the sdist of vaderSentiment 3.3.2; {archive} cannot be read as it: {reason}"
        ) from None


# 20 newsgroups

CACHE = "20news-bydate_py3.pkz"
Removed = Literal["headers", "footers", "quotes"]


@gin.register
@dataclass(frozen=True, kw_only=True)
class Newsgroups(LabelledTexts):
    """20 newsgroups by date: 11,314 posts to learn from, 7,532 later ones to test on.

    Read by scikit-learn's own `fetch_20newsgroups`, without its download. Posts of which nothing
    is left are left out. The file is a pickle: take only one that scikit-learn made.

    folder: the data_home of scikit-learn, which holds 20news-bydate_py3.pkz.
    remove: what is cut from every post. Headers and quotes name the group, so that a classifier
        that has them learns little else, as scikit-learn's guide says.
    """

    folder: PathField = "~/scikit_learn_data"
    remove: tuple[Removed, ...] = ("headers", "footers", "quotes")

    @property
    def is_split(self) -> bool:
        return True

    def must_exist(self, field: str, path: str) -> None:
        if not Path(path, CACHE).is_file():
            self.refuse(
                field,
                f"must hold {CACHE}, got {path} without it; scikit-learn's "
                f"fetch_20newsgroups(data_home={path!r}) downloads it",
            )

    def files(self, split: SplitName) -> Sequence[str]:
        return [str(Path(self.folder, CACHE))]

    def options(self, split: SplitName) -> tuple[object, ...]:
        return (split, self.remove, *super().options(split))

    def lines(self, split: SplitName) -> list[TextLine]:
        self.must_exist("folder", self.folder)
        return checked(self._lines(split), self.folder)

    def _lines(self, split: SplitName) -> Iterator[TextLine]:
        from sklearn.datasets import fetch_20newsgroups

        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints where a file is damaged
                posts = fetch_20newsgroups(
                    data_home=self.folder,
                    subset=split,
                    remove=self.remove,
                    shuffle=False,
                    download_if_missing=False,
                )
            rows = [*zip(posts.filenames, posts.data, posts.target, strict=True)]
        except Exception as error:  # of all kinds, by what is wrong with the file
            reason = f"{error} ".splitlines()[0].strip()
            raise PackError(
                f"must hold the {CACHE} of scikit-learn; it cannot be read: {reason}"
            ) from None
        for place, text, label in rows:
            if text.strip():
                yield TextLine(str(place), text, posts.target_names[label])
