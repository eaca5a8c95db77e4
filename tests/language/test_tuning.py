"""Tuning: the loss against plain loops, a step against peft, bits after a kill, flags of how."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_language import LORA, MONO, TARGETS, JobOf, dolly, sst2, tuning, write_home
from torch.testing import assert_close

from monosem.checkpoints.transformer_folder import CHECKPOINTING, HALF, SHARD
from monosem.core.stage import key
from monosem.language.decoding import padded
from monosem.language.memory import of_training
from monosem.language.models import CausalTransformer
from monosem.language.prompts import drawn
from monosem.language.tuning import answer_logits
from monosem.learning.adapters import MEASURES, AdaptedLinear

transformers = pytest.importorskip("transformers", reason="the extra 'language'")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_home(tmp_path_factory.mktemp("language"))


def batch_of(stage, count):
    """The first examples as a batch, and as lists: prompt, answer with its end."""
    tokens = stage._drawn()[:count]
    pairs = [(one.prompt, [*one.answer, stage.model.ends[0]]) for one in tokens]
    ids, mask = padded([[*p, *a] for p, a in pairs], stage.model.tokenizer.pad, left=False)
    place = torch.arange(ids.shape[1])
    is_answer = (place >= torch.tensor([[len(p)] for p, _ in pairs])) & mask.bool()
    return (ids, mask, is_answer), pairs


def loss_by_loops(network, pairs):
    """Text by text without padding, token by token of the answers alone."""
    losses = []
    for prompt, answer in pairs:
        text = [*prompt, *answer]
        logits = network(input_ids=torch.tensor([text])).logits[0]
        for place in range(len(prompt), len(text)):
            losses.append(-logits[place - 1].log_softmax(0)[text[place]])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("texts", [sst2, dolly])
def test_the_loss_is_of_the_tokens_of_answers_alone(home, texts):
    stage = tuning(home, texts=texts(home))
    batch, pairs = batch_of(stage, 6)
    assert len({len(p) + len(a) for p, a in pairs}) > 1, "there is padding"
    network = stage.model.network(lambda one: {})
    logits, wanted = answer_logits(network, *batch)
    assert wanted.tolist() == [token for _, answer in pairs for token in answer]
    assert_close(F.cross_entropy(logits, wanted), loss_by_loops(network, pairs))


def test_batches_of_training_have_just_the_answers_marked(home):
    stage = tuning(home)
    rows, drawn_ones = stage._rows(), stage._drawn()
    prompts = {tuple(row): len(one.prompt) for row, one in zip(rows, drawn_ones, strict=True)}
    seen = []
    batches = stage._batches(rows, [len(one.prompt) for one in drawn_ones])
    for ids, mask, is_answer in batches(0):
        for row, here, marked in zip(ids.tolist(), mask.tolist(), is_answer.tolist(), strict=True):
            text = tuple(row[: sum(here)])
            assert here == [1] * len(text) + [0] * (len(row) - len(text))
            expected = [prompts[text] <= place < len(text) for place in range(len(row))]
            assert marked == expected
            seen.append(text)
    assert sorted(seen) == sorted(map(tuple, rows))  # 40 texts, 5 batches of 8
    again = [ids.tolist() for ids, _, _ in batches(0)]
    assert again == [ids.tolist() for ids, _, _ in batches(0)]
    assert again != [ids.tolist() for ids, _, _ in batches(1)]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_lora_takes_the_step_that_peft_takes_on_the_same_weights(home):
    peft = pytest.importorskip("peft", reason="the judge of LoRA")
    stage = tuning(home, adapter=type(LORA)(targets=TARGETS, dropout=0.0))
    network, learned = stage.adapted()
    config = peft.LoraConfig(r=8, lora_alpha=4, lora_dropout=0.0, target_modules=list(TARGETS))
    theirs = peft.get_peft_model(stage.model.network(lambda one: {}), config)
    pairs = {
        name.removeprefix("base_model.model.").replace(".", "/"): (
            module.lora_A["default"].weight,
            module.lora_B["default"].weight,
        )
        for name, module in theirs.named_modules()
        if hasattr(module, "lora_A")
    }
    assert pairs.keys() == learned.keys() and len(pairs) == 4
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, (down, up) in pairs.items():
            up.copy_(torch.randn(up.shape, generator=draw) / 10)
            learned[name]["down"].weight.copy_(down)
            learned[name]["up"].weight.copy_(up)
    batch, _ = batch_of(stage, 8)
    losses = []
    for model in (network, theirs):
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=0.01)
        loss = F.cross_entropy(*answer_logits(model, *batch))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert_close(*losses)
    for name, (down, up) in pairs.items():
        assert_close(learned[name]["down"].weight, down, atol=1e-5, rtol=1e-4)
        assert_close(learned[name]["up"].weight, up, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("adapter", [LORA, MONO])
def test_an_adapter_learns_and_logs_its_measures_and_nothing_else_changes(home, adapter):
    stage = tuning(home, adapter=adapter, epochs=4)
    job = JobOf()
    artifact = stage.run(job)
    losses = [line["loss"] for line in job.logged]
    assert len(losses) == 4 and losses[-1] < 0.8 * losses[0]
    assert all(set(MEASURES) <= set(line) for line in job.logged)
    assert len(artifact) == 8 and all("_proj" in name for name in artifact)
    before = stage.model.network(lambda one: {}).state_dict()
    after = stage.network(lambda one: artifact).state_dict()
    for name, weight in before.items():
        kept = after.get(name, after.get(name.replace("_proj.", "_proj.layer.")))
        assert torch.equal(weight, kept)


def test_a_training_that_was_killed_goes_on_with_the_same_bits(home):
    stage = tuning(home, epochs=3)
    whole = stage.run(JobOf())
    first = JobOf(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        stage.run(first)
    torch.manual_seed(9)  # what else the process drew does not matter
    again = stage.run(JobOf(first.saved))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_torch_draws_elsewhere_is_left_alone(home):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    tuning(home, epochs=1).run(JobOf())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("flag", [HALF, CHECKPOINTING, SHARD])
def test_flags_of_how_are_in_no_key_and_change_numbers_by_rounding_alone(home, monkeypatch, flag):
    if flag == SHARD:
        pytest.importorskip("accelerate", reason="it spreads layers")
    stage = tuning(home, epochs=2)
    plain, name = stage.run(JobOf()), key(stage)
    monkeypatch.setenv(flag, "1")
    key.cache_clear()
    assert key(tuning(home, epochs=2)) == name
    job = JobOf()
    flagged = stage.run(job)
    assert all(weight.dtype == torch.float32 for weight in flagged.values())
    if flag == HALF:
        assert next(stage.adapted().network.parameters()).dtype == torch.bfloat16
    for at, weight in plain.items():
        loose = {"atol": 0.02, "rtol": 0.3} if flag == HALF else {"atol": 1e-5, "rtol": 1e-4}
        close = torch.isclose(flagged[at], weight, **loose).float().mean()
        assert close > (0.8 if flag == HALF else 0.999)


def test_half_precision_halves_the_memory_that_is_foretold_and_checkpointing_most_of_what_is_kept(
    home, monkeypatch
):
    config = CausalTransformer(str(home / "llama")).config
    plain = of_training(config, 1000, 10, 16, 64)
    monkeypatch.setenv(HALF, "1")
    half = of_training(config, 1000, 10, 16, 64)
    assert (half.weights, half.activations) == (plain.weights / 2, plain.activations / 2)
    monkeypatch.setenv(CHECKPOINTING, "1")
    assert of_training(config, 1000, 10, 16, 64).activations < 0.65 * half.activations


def test_the_memory_that_is_foretold_is_about_what_a_step_keeps(home, tmp_path):
    from tiny_language import llama

    llama(tmp_path / "llama", hidden_size=64, intermediate_size=160, num_hidden_layers=6)
    stage = tuning(home, model=CausalTransformer(str(tmp_path / "llama")), length=128)
    network, _ = stage.adapted()
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {w.untyped_storage().data_ptr() for w in network.parameters()}
    batch, _ = batch_of(stage, 16)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(input_ids=batch[0], attention_mask=batch[1], use_cache=False)
    found = sum(size for place, size in kept.items() if place not in weights)
    foretold = of_training(stage.model.config, 0, 0, *batch[0].shape).activations
    assert 0.6 < foretold / found < 1.7


@pytest.mark.parametrize("adapter", [LORA, MONO])
def test_the_adapter_is_beside_the_chosen_layers_and_nowhere_else(home, adapter):
    network, _ = tuning(home, adapter=adapter).adapted()
    adapted = [name for name, part in network.named_modules() if isinstance(part, AdaptedLinear)]
    assert sorted(adapted) == [
        f"model.layers.{layer}.self_attn.{which}_proj" for layer in (0, 1) for which in "qv"
    ]


def test_examples_are_drawn_by_seed_and_those_that_are_too_long_are_left_out(home):
    tokenizer, texts = CausalTransformer(str(home / "llama")).tokenizer, sst2(home)
    everything = drawn(texts, "train", tokenizer, 100, 64, 0)
    assert len(everything) == 40
    few = drawn(texts, "train", tokenizer, 10, 64, 0)
    assert few == everything[:10] != drawn(texts, "train", tokenizer, 10, 64, 1)
    sizes = [len(one.prompt) + len(one.answer) for one in everything]
    short = drawn(texts, "train", tokenizer, 100, 12, 0)
    assert short == [one for one, n in zip(everything, sizes, strict=True) if n <= 12]
    assert 0 < len(short) < 40
