"""Text encoders against transformers itself, text by text and without any padding."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from tiny_text import LAYERS, WIDTH, WORDS, tiny_bert, tiny_llama, write_tokenizer
from torch.testing import assert_close

from monosem.core.fields import FieldError
from monosem.core.stage import StageError, key
from monosem.core.store import Store
from monosem.corruptions.few_shot import FewShot
from monosem.data.tokens import Tokenizer
from monosem.datasets.digits import Digits
from monosem.datasets.text_files import TextFile
from monosem.learning.adapters import LoRA, MonoLoRA, watched
from monosem.learning.optimizers import Adam, Constant
from monosem.models.features import Features, encode
from monosem.models.text_encoder import TextEncoder, pooled
from monosem.probes.finetune import FineTune
from monosem.robustness.curves import Curve

transformers = pytest.importorskip("transformers")


def write_texts(path, count=60):
    draw = torch.Generator().manual_seed(0)
    rows = ["text\tlabel"]
    for index in range(count):
        length = int(torch.randint(2, 12, (), generator=draw))
        chosen = torch.randint(len(WORDS), (length,), generator=draw).tolist()
        words = " ".join(WORDS[word] for word in chosen)
        rows.append(f"{words} number {index} .\t{'good' if index % 2 else 'bad'}")
    path.write_text("\n".join(rows) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("text")
    tiny_bert(home / "bert")
    tiny_llama(home / "llama")
    write_texts(home / "texts.tsv")
    return home


def texts_of(home, model="bert", length=32):
    return TextFile(
        train=str(home / "texts.tsv"), tokenizer=Tokenizer(str(home / model)), length=length
    )


def hidden_states(home, name, text):
    """Of one text alone, which needs no padding: (layers + 1, tokens, width)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / name)
    model = transformers.AutoModel.from_pretrained(home / name).eval()
    with torch.no_grad():
        output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
    return torch.cat(output.hidden_states)


@pytest.mark.parametrize("model", ["bert", "llama"])
@pytest.mark.parametrize("pool", ["mean", "first", "last"])
@pytest.mark.parametrize("layer", [None, 0, 2])
def test_features_are_the_pooled_hidden_states_of_every_text_alone(
    home, tmp_path, model, pool, layer
):
    data = texts_of(home, model)
    encoder = TextEncoder(str(home / model), layer=layer, pool=pool)
    features = Store(tmp_path).get(Features(encoder, data, "test"))["features"]
    assert features.shape == (len(data.split("test").labels), encoder.width) == (len(features), 16)
    for index in range(0, len(features), 5):
        states = hidden_states(home, model, data.show([index])[0])[-1 if layer is None else layer]
        expected = {"mean": states.mean(0), "first": states[0], "last": states[-1]}[pool]
        assert_close(features[index], expected, atol=2e-5, rtol=1e-4)


def test_a_text_that_lost_all_its_tokens_has_finite_features(home):
    network = TextEncoder(str(home / "bert")).network(None)
    assert network(torch.zeros(2, 3, dtype=torch.int64)).isfinite().all()


def test_pooling_leaves_padding_out():
    states = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert pooled(states, mask, "mean").tolist() == [[1, 2], [6, 7]]
    assert pooled(states, mask, "last").tolist() == [[2, 3], [6, 7]]
    assert pooled(states, mask, "first").tolist() == [[0, 1], [6, 7]]


def test_the_content_of_the_folder_counts_and_not_its_place(home, tmp_path):
    tiny_bert(tmp_path / "copy")
    tiny_bert(tmp_path / "other", seed=1)
    keys = [
        key(Features(TextEncoder(str(folder)), texts_of(home), "test"))
        for folder in (home / "bert", tmp_path / "copy", tmp_path / "other")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_layer_that_is_not_there_is_refused(home):
    assert TextEncoder(str(home / "bert"), layer=LAYERS).width == WIDTH
    with pytest.raises(
        FieldError, match="TextEncoder.layer must be from 0, the embeddings, to 3, the last, got 4"
    ):
        TextEncoder(str(home / "bert"), layer=4)


def complaint(folder):
    with pytest.raises(FieldError) as error:
        TextEncoder(str(folder)).content()
    return str(error.value)


def test_a_folder_without_a_model_is_refused(home, tmp_path):
    assert complaint(tmp_path / "no") == f"TextEncoder.weights must be a folder, got {tmp_path}/no"
    assert "got package:no_such_one/model; try: pip install no-such-one" in complaint(
        "package:no_such_one/model"
    )
    write_tokenizer(tmp_path / "tokenizer")
    assert "must hold config.json" in complaint(tmp_path / "tokenizer")
    tiny_bert(tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    assert "must hold the weights, *.safetensors or *.bin" in complaint(tmp_path / "empty")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "t5"}, "must be an encoder or a decoder of tokens"),
        ({"model_type": "vit"}, "must be an encoder or a decoder of tokens"),
        ({"model_type": "of my own"}, "must hold the config.json of a transformer"),
        ({}, "must hold the config.json of a transformer"),
    ],
)
def test_another_architecture_is_refused(tmp_path, config, words):
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = complaint(tmp_path)
    assert words in message
    assert "\n" not in message


def test_weights_that_are_missing_are_no_random_ones(home, tmp_path):
    tiny_bert(tmp_path / "bert")
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(StageError, match="must hold all weights of BertModel; 16 are missing"):
        TextEncoder(str(tmp_path / "bert")).network(None)


def test_texts_of_another_tokenizer_and_images_are_refused(home, tmp_path):
    encoder = TextEncoder(str(home / "bert"))
    assert encoder.incompatibility(texts_of(home)) is None
    assert encoder.incompatibility(Digits(size=8)) == (
        "must be texts, as TextEncoder takes them, got Digits"
    )
    write_tokenizer(tmp_path, [*WORDS, "more"])
    other = TextFile(train=str(home / "texts.tsv"), tokenizer=Tokenizer(str(tmp_path)), length=32)
    assert "must have the tokenizer of TextEncoder.weights" in encoder.incompatibility(other)
    assert encoder.incompatibility(texts_of(home, length=41)) == (
        "must have length of at most 40, as TextEncoder takes, got 41"
    )


def test_transformers_is_imported_only_where_there_is_text():
    command = "import monosem.specs.load, sys; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True)


def test_a_text_without_one_of_its_words_is_that_text_written_without_it(home):
    data = texts_of(home)
    (text,) = data.show([3])
    spans, inputs = data.occlusions(3)
    words = [text[start:end] for start, end in spans]
    assert words == [word for word in text.split() if word != "."]
    for word, tokens in zip(range(len(words)), inputs, strict=True):
        others = " ".join(words[:word] + words[word + 1 :]) + " ."
        expected = data.tokenizer.encode([others], 32)[0]
        assert tokens.tolist() == expected + [data.tokenizer.pad] * (32 - len(expected))


# Adapters in it


def adapted_curve(home, name, adapter):
    probe = FineTune(
        optimizer=Adam(lr=0.03), schedule=Constant(), epochs=12, batch_size=8, adapter=adapter
    )
    return Curve(
        encoder=TextEncoder(str(home / name)),
        data=texts_of(home, name),
        probe=probe,
        corruption=FewShot(),
        severities=(20,),
        repeats=1,
    )


@pytest.mark.parametrize("kind", [LoRA, MonoLoRA])
@pytest.mark.parametrize(
    ("name", "targets"), [("bert", ("query", "value")), ("llama", ("q_proj", "v_proj"))]
)
def test_adapters_learn_in_encoders_and_decoders(home, tmp_path, name, targets, kind):
    curve = adapted_curve(home, name, kind(targets=targets, rank=4))
    for stage in (*curve.upstream(), curve):
        stage.preflight()
    store = Store(tmp_path)
    artifact = store.get(curve)
    assert artifact["update_norm"].item() > 0
    tuned = curve.probe.tuned(curve.task, 20, 0)
    losses = [entry.scalars["loss"] for entry in store.history(tuned)]
    assert losses[-1] < losses[0]
    names = {name.split("/")[-1].split(".")[0] for name in store.get(tuned) if "/" in name}
    assert names == {*targets}


def test_a_target_that_a_transformer_lacks_is_refused_before_its_weights_are_read(home):
    curve = adapted_curve(home, "llama", LoRA(targets=("q_prj",)))
    (tuned,) = curve.upstream()
    with pytest.raises(FieldError, match="LoRA.targets has 'q_prj'.* did you mean 'q_proj'"):
        tuned.preflight()


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_measures_of_an_adapter_do_not_count_padding(home, name):
    data = texts_of(home, name)
    network = TextEncoder(str(home / name)).network(no_artifact)
    targets = ("query",) if name == "bert" else ("q_proj",)
    MonoLoRA(targets=targets, rank=4).attach(network)
    network.eval()
    inputs = data.split("train").inputs[:6]
    padded = torch.cat([inputs, torch.full((6, 8), data.tokenizer.pad)], 1).long()
    with watched(network) as measures:
        network(padded)
        together = measures()
    with watched(network) as measures:
        for row in inputs:
            network(data.prepare(row[None]))
        assert_close(together, measures())


def test_networks_of_one_model_share_its_weights_until_they_learn(home, tmp_path):
    encoder, data = TextEncoder(str(home / "bert")), texts_of(home)
    first, second = (encoder.network(no_artifact) for _ in range(2))
    weights = zip(first.parameters(), second.parameters(), strict=True)
    assert all(a is not b and a.data_ptr() == b.data_ptr() for a, b in weights)
    before = {name: weight.clone() for name, weight in second.state_dict().items()}
    curve = adapted_curve(home, "bert", None)
    tuned = curve.probe.tuned(curve.task, 4.0, 0)
    learned = Store(tmp_path).get(tuned)
    changed = [name for name in learned if name.startswith("learns.") and "query" in name]
    assert changed and all(
        not torch.equal(learned[name], before[name.removeprefix("learns.")]) for name in changed
    )
    assert_close(second.state_dict(), before, rtol=0, atol=0)
    inputs = data.split("test").inputs
    fresh = encoder.network(no_artifact)
    assert torch.equal(encode(first, data, inputs), encode(fresh, data, inputs))


def no_artifact(stage):
    raise AssertionError(f"a text encoder has no artifact, got {stage}")
