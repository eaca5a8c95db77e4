"""Rated texts in an archive inside an archive, in the format of vaderSentiment's sdist."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from tiny_text import archive_of, ratings_of, write_tokenizer, write_vader

from monosem.core.fields import FieldError
from monosem.corruptions.human_noise import RaterNoise
from monosem.data.tokens import Tokenizer
from monosem.datasets.digits import Digits
from monosem.datasets.published_texts import VaderReviews


@pytest.fixture
def tokenizer(tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    return Tokenizer(str(tmp_path / "tokenizer"))


@pytest.fixture
def films(tmp_path, tokenizer):
    return VaderReviews(tokenizer=tokenizer, archive=write_vader(tmp_path / "v.tar.gz"), length=16)


def indices(texts):
    return [int(text.split()[2]) for text in texts]


def test_the_label_is_the_sign_of_the_mean_rating_and_a_mean_of_0_is_left_out(films):
    assert films.problem() is None and films.class_names == ("negative", "positive")
    numbers = {split: indices(films.texts(split)) for split in films.splits}
    assert sorted(numbers["train"] + numbers["test"]) == [i for i in range(40) if i != 7]
    for split in films.splits:
        assert films.split(split).labels.tolist() == [index % 2 for index in numbers[split]]


def test_ratings_belong_to_their_texts_and_a_rating_of_0_is_no_label(films):
    for index, row in zip(indices(films.texts("train")), films.rater_labels(), strict=True):
        assert row.tolist() == [-1 if r == 0 else int(r > 0) for r in ratings_of(index)]


def test_the_worst_rater_is_wrong_wherever_one_is_and_a_random_one_now_and_then(films):
    labels = films.split("train").labels
    can_be_wrong = [index % 3 == 0 for index in indices(films.texts("train"))]
    worst = RaterNoise("worst")
    seen = worst.labels(labels, films, 1.0, worst.draw(0, films))
    assert (seen != labels).tolist() == can_be_wrong
    random = RaterNoise()
    wrong = [random.labels(labels, films, 1.0, random.draw(r, films)) != labels for r in range(50)]
    share = sum(int(row.sum()) for row in wrong) / (50 * sum(can_be_wrong))
    assert 0.25 < share < 0.42  # one of three who decide


def test_rater_noise_is_nested_over_severities_and_exact(films):
    labels, noise = films.split("train").labels, RaterNoise("worst")
    clean, half, whole = (
        noise.labels(labels, films, severity, noise.draw(0, films)) != labels
        for severity in (0.0, 0.5, 1.0)
    )
    assert not clean.any() and half.sum() == round(0.5 * int(whole.sum()))
    assert (half <= whole).all()


def test_data_without_raters_are_refused():
    assert "must have the labels of single raters" in RaterNoise().incompatibility(Digits(size=8))


def test_what_is_no_sdist_of_vader_is_refused(tmp_path, tokenizer):
    def refused(path, message):
        with pytest.raises(FieldError, match=message):
            VaderReviews(tokenizer=tokenizer, archive=str(path)).problem()

    refused(tmp_path / "none.tar.gz", r"archive must be there, .*pip download")
    (tmp_path / "a.tar.gz").write_bytes(b"not an archive")
    refused(tmp_path / "a.tar.gz", r"a.tar.gz cannot be read as it")
    (tmp_path / "b.tar.gz").write_bytes(archive_of({"x": b"y"}))
    refused(tmp_path / "b.tar.gz", r"has no hutto_ICWSM_2014.tar.gz")
    write_vader(tmp_path / "c.tar.gz", text=lambda index: " " if index == 3 else "fine")
    refused(tmp_path / "c.tar.gz", r"a text everywhere; .*GroundTruth.txt .*, line 4 has none")
