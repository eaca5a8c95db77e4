"""20 newsgroups in the file that scikit-learn keeps them in, held against its own reader."""

from __future__ import annotations

import codecs
import pickle

import pytest

pytest.importorskip("transformers")

from sklearn.datasets import fetch_20newsgroups, load_files
from tiny_text import write_tokenizer

from monosem.core.fields import FieldError
from monosem.data.tokens import Tokenizer
from monosem.datasets.published_texts import CACHE, Newsgroups

GROUPS = ("sci.space", "alt.atheism", "rec.autos")
POST = "From: he@it\nSubject: {group}\n\nIt writes:\n> a dull story\nthe film was good {number}\n"


@pytest.fixture
def home(tmp_path):
    """A data_home, made as scikit-learn makes it of the archive's folders."""
    for split, posts in (("train", 5), ("test", 3)):
        for group in GROUPS:
            (tmp_path / split / group).mkdir(parents=True)
            for number in range(posts):
                text = POST.format(group=group, number=number) + "caf\u00e9\n"
                (tmp_path / split / group / str(number)).write_bytes(text.encode("latin1"))
        (tmp_path / split / GROUPS[0] / "9").write_text("From: she@it\n\n> a quote alone\n")
    parts = ("train", "test")
    cache = {part: load_files(str(tmp_path / part), encoding="latin1") for part in parts}
    (tmp_path / "home").mkdir()
    content = codecs.encode(pickle.dumps(cache), "zlib_codec")
    (tmp_path / "home" / CACHE).write_bytes(content)
    return tmp_path / "home"


def newsgroups(home, **fields):
    write_tokenizer(home.parent / "tokenizer")
    tokenizer = Tokenizer(str(home.parent / "tokenizer"))
    packs = str(home.parent / "packs")
    return Newsgroups(tokenizer=tokenizer, folder=str(home), packs=packs, length=24, **fields)


@pytest.mark.parametrize("remove", [(), ("headers",), ("headers", "footers", "quotes")])
def test_posts_and_labels_are_those_of_scikit_learn_without_the_empty_ones(home, remove):
    data = newsgroups(home, remove=remove)
    assert data.problem() is None
    assert data.class_names == tuple(sorted(GROUPS))
    for split in data.splits:
        theirs = fetch_20newsgroups(data_home=home, subset=split, remove=remove, shuffle=False)
        kept = [i for i, text in enumerate(theirs.data) if text.strip()]
        assert [*data.texts(split)] == [theirs.data[i] for i in kept]
        assert data.split(split).labels.tolist() == [int(theirs.target[i]) for i in kept]
    assert (len(data.texts("test")) == 9) == ("quotes" in remove)


def test_what_is_removed_is_in_the_key(home):
    assert newsgroups(home).content() != newsgroups(home, remove=("headers",)).content()


def test_files_that_are_not_there_are_not_downloaded(tmp_path):
    (tmp_path / "home").mkdir()
    with pytest.raises(FieldError, match=r"Newsgroups.folder must hold 20news-bydate_py3.pkz, got"):
        newsgroups(tmp_path / "home").problem()
    assert not [*(tmp_path / "home").iterdir()]


def test_a_damaged_file_is_refused_in_one_line(home, capsys):
    (home / CACHE).write_bytes(b"nothing")
    with pytest.raises(FieldError, match=r"must hold the 20news\S+ of scikit-learn; it cannot be"):
        newsgroups(home).problem()
    assert "Cache loading failed" not in capsys.readouterr().out
