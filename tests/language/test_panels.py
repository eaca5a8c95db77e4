"""What is measured of language models: against plain loops, and rouge-score's own formula."""

from __future__ import annotations

import math
import re

import pytest
import torch
from tiny_language import (
    MONO,
    JobOf,
    dolly,
    sst2,
    tuning,
    write_home,
)
from torch.testing import assert_close

from monosem.language.answers import Generation, measures_in, rouge_l
from monosem.language.choices import LETTERS, ChoiceFile, MultipleChoice, NextWord
from monosem.language.harm import GuardModel, Harm, HarmClassifier
from monosem.language.models import CausalTransformer
from monosem.language.prompts import PromptFile
from monosem.learning.adapters import MEASURES, adapted_layers

transformers = pytest.importorskip("transformers", reason="the extra 'language'")

RULES = (("hate", "it was awful"), ("rude", "he is bad and dull"))
GUARD = "{prompt} . {answer} . {rule} . answer :"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_home(tmp_path_factory.mktemp("panels"))


def base(home):
    return CausalTransformer(str(home / "llama"))


def table(panel, job):
    """{(metric, point): (value, n)}"""
    artifact = panel.run(job)
    results = list(panel.results(artifact))
    assert {(one.metric, one.point) for one in results} <= {
        (metric, point.name) for metric in panel.metrics for point in panel.points
    }
    assert list(panel.remarks(artifact)) or not panel.model.measures
    return {(one.metric, one.point): (one.value, one.n) for one in results}


def logits_after(home, folder, text):
    """Of the token after a text, alone and without padding; the tokenizer is transformers' own."""
    loaded = transformers.AutoTokenizer.from_pretrained(home / folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(home / folder)
    ids = loaded(text, return_tensors="pt").input_ids[:, :-1]  # without [SEP]
    with torch.no_grad():
        return model(input_ids=ids).logits[0, -1], loaded.convert_tokens_to_ids


def test_the_next_word_is_chosen_among_the_labels_or_from_the_whole_vocabulary(home):
    texts = sst2(home)
    panel = NextWord(name="sst2", model=base(home), texts=texts)
    found = table(panel, JobOf())
    right = said = 0
    for exchange in texts.exchanges("test"):
        logits, token = logits_after(home, "llama", exchange.prompt)
        words = [token(word) for word in ("negative", "positive")]
        best = int(logits[words].argmax())
        right += ("negative", "positive")[best] == exchange.answer
        said += int(logits.argmax()) == token(exchange.answer)
    assert found["label_accuracy", "all"] == (pytest.approx(100 * right / 12), 12)
    assert found["word_accuracy", "all"] == (pytest.approx(100 * said / 12), 12)
    assert 0 < right < 12


def test_the_right_letter_is_the_most_probable_of_the_four(home):
    questions = ChoiceFile(file=str(home / "mmlu.csv"), subject="subject")
    panel = MultipleChoice(name="mmlu", model=base(home), questions=questions)
    found = table(panel, JobOf())
    right = {"law": [], "films": []}
    for exchange in questions.exchanges("test"):
        logits, token = logits_after(home, "llama", exchange.prompt)
        best = int(logits[[token(letter.lower()) for letter in LETTERS]].argmax())
        right[exchange.group].append(LETTERS[best] == exchange.answer)
    for subject, values in right.items():
        assert found["right_letter", subject] == (pytest.approx(20 * sum(values)), 5)
    everything = right["law"] + right["films"]
    assert found["right_letter", "all"] == (pytest.approx(10 * sum(everything)), 10)
    assert [point.name for point in panel.points] == ["law", "films", "all"]


def test_a_tuned_model_does_better_on_its_task_and_has_the_measures_of_its_adapter(home):
    tuned = tuning(home, epochs=12)
    found = table(NextWord(name="sst2", model=tuned, texts=sst2(home)), JobOf())
    assert found["label_accuracy", "all"][0] > 90  # the last word tells it
    assert found["word_accuracy", "all"][0] > 90
    for name in MEASURES:
        assert math.isfinite(found[name, "all"][0])


def lcs(a, b):
    """The length of the longest common subsequence, by its recursion."""
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            longest = max(lengths[i][j + 1], lengths[i + 1][j])
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if one == other else longest
    return lengths[-1][-1]


def rouge_by_hand(right, said):
    a, b = (re.findall(r"[a-z0-9]+", text.lower()) for text in (right, said))
    common = lcs(a, b)
    if not common:
        return 0.0
    precision, recall = common / len(b), common / len(a)
    return 2 * precision * recall / (precision + recall)


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(home):
    pytest.importorskip("rouge_score", reason="the extra 'language'")
    right = ["The film was good, and it was not dull!", "a b c", "one", ""]
    said = ["film: the plot was not good and dull", "c b a", "two", "x"]
    expected = [rouge_by_hand(*pair) for pair in zip(right, said, strict=True)]
    assert rouge_l(right, said, stemming=False) == pytest.approx(expected)
    assert expected[0] == pytest.approx(2 * 4 / (8 + 9)) or expected[0] > 0
    assert rouge_l(["answers"], ["answered"], stemming=True) == [1.0]


def test_generation_is_scored_on_the_answers_that_were_given(home):
    pytest.importorskip("rouge_score", reason="the extra 'language'")
    texts = dolly(home)
    panel = Generation(name="dolly", model=base(home), texts=texts, length=64, new_tokens=6)
    job = JobOf()
    found = table(panel, job)
    answers, answered = panel.answers, job.get(panel.answers)
    spoken = answers.spoken(answered)
    assert len(spoken) == 12 == len(texts.exchanges("test")) and any(spoken)
    scores = [
        rouge_by_hand(exchange.answer, text)
        for exchange, text in zip(answers.exchanges(), spoken, strict=True)
    ]
    assert found["rouge_l", "all"] == (pytest.approx(100 * sum(scores) / 12), 12)


def harm_of(home, judge, **fields):
    asked = PromptFile(file=str(home / "prompts.jsonl"))
    standard = {"length": 64, "new_tokens": 5, "asked": asked, "judge": judge}
    return Harm(name="harm", model=base(home), **{**standard, **fields})


def test_a_guard_model_gives_the_probability_of_yes_against_no_rule_by_rule(home):
    judge = GuardModel(weights=str(home / "guard"), rules=RULES, prompt=GUARD)
    panel, job = harm_of(home, judge), JobOf()
    found = table(panel, job)
    spoken = panel.answers.spoken(job.get(panel.answers))
    by_group = {}
    for exchange, answer in zip(panel.answers.exchanges(), spoken, strict=True):
        row = []
        for _, rule in RULES:
            text = GUARD.format(prompt=exchange.prompt, answer=answer, rule=rule)
            logits, token = logits_after(home, "guard", text)
            row.append(float(logits[[token("yes"), token("no")]].softmax(0)[0]))
        by_group.setdefault(exchange.group, []).append(row)
    means = {group: torch.tensor(rows).mean(0) * 100 for group, rows in by_group.items()}
    for group, mean in means.items():
        assert found["harm_hate", group] == (
            pytest.approx(float(mean[0]), abs=1e-3),
            len(by_group[group]),
        )
        assert found["harm", group][0] == pytest.approx(float(mean.mean()), abs=1e-3)
    overall = torch.stack([*means.values()]).mean()  # categories count alike
    assert found["harm", "mean"] == (pytest.approx(float(overall), abs=1e-3), 9)
    assert len(by_group) == 2 and len({len(rows) for rows in by_group.values()}) == 2


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_a_classifier_gives_the_probability_of_the_named_label(home, tmp_path, kind):
    from tiny_language import classifier

    folder = classifier(tmp_path / "judge", problem_type=kind)
    judge = HarmClassifier(weights=str(folder), labels=("unsafe",))
    panel, job = harm_of(home, judge), JobOf()
    artifact = panel.run(job)
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    spoken = panel.answers.spoken(job.get(panel.answers))
    for exchange, answer, harm in zip(
        panel.answers.exchanges(), spoken, artifact["harm"], strict=True
    ):
        inputs = loaded(
            f"{exchange.prompt}\n{answer}", return_tensors="pt", truncation=True, max_length=64
        )
        with torch.no_grad():
            logits = model(input_ids=inputs.input_ids).logits[0]
        probabilities = logits.sigmoid() if kind.startswith("multi") else logits.softmax(0)
        assert_close(harm[0], probabilities[1].double(), atol=1e-5, rtol=1e-4)


def test_a_threshold_gives_the_share_of_answers_that_reach_it(home):
    judge = HarmClassifier(weights=str(home / "classifier"), labels=("unsafe",))
    job = JobOf()
    artifact = harm_of(home, judge).run(job)
    middle = float(artifact["harm"].median())
    panel = harm_of(home, judge, threshold=middle)
    found = {(one.metric, one.point): one.value for one in panel.results(artifact)}
    groups = [exchange.group for exchange in panel.answers.exchanges()]
    for group in set(groups):
        chosen = [
            float(h) >= middle
            for h, g in zip(artifact["harm"][:, 0], groups, strict=True)
            if g == group
        ]
        assert found["harm", group] == pytest.approx(100 * sum(chosen) / len(chosen))


def test_judges_share_the_answers_of_a_model(home):
    guard = GuardModel(weights=str(home / "guard"), rules=RULES, prompt=GUARD)
    other = HarmClassifier(weights=str(home / "classifier"), labels=("unsafe",))
    assert harm_of(home, guard).answers == harm_of(home, other).answers


def test_the_measures_of_an_adapter_count_the_tokens_that_are_read_and_no_padding(home):
    tuned = tuning(home, adapter=MONO, epochs=1)
    job = JobOf()
    panel = Generation(name="dolly", model=tuned, texts=dolly(home), length=64, new_tokens=4)
    measured = measures_in(job.get(panel.answers))
    network = tuned.network(job.get)
    layers = adapted_layers(network)
    zeros = activations = 0
    for tokens, row in zip(
        panel.answers.drawn(), job.get(panel.answers)["tokens"].tolist(), strict=True
    ):
        said = [token for token in row if token >= 0]
        read = [*tokens.prompt, *(said if len(said) < 4 else said[:3])]  # the last is not read
        for layer in layers:
            layer.seen = []
            layer.up.register_forward_pre_hook(lambda m, given, at=layer: at.seen.append(given[0]))
        with torch.no_grad():
            network(input_ids=torch.tensor([read]))
        for layer in layers:
            zeros += int((layer.seen[-1] == 0).sum())
            activations += layer.seen[-1].numel()
    assert measured["adapter_sparsity"] == pytest.approx(100 * zeros / activations, abs=0.5)
