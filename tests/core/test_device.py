"""Where tensors live: seeding, precision and inputs that do not fit on the device."""

from __future__ import annotations

import pytest
import torch

from monosem.core.device import BatchLoader, autocast_dtype, device, out_of_memory, seeded
from monosem.core.identity import generator


def test_seeding_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    with seeded("a"):
        first = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    with seeded("a"):
        assert torch.equal(first, torch.rand(3))


@pytest.mark.parametrize(
    ("has_instructions", "half"), [(True, torch.bfloat16), (False, torch.float32)]
)
def test_half_precision_on_a_cpu_is_bfloat16_where_it_has_instructions_for_it(
    monkeypatch, has_instructions, half
):
    if device().type == "cuda":
        pytest.skip("a GPU does what it is asked for")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    assert autocast_dtype("float16") == half
    assert autocast_dtype("bfloat16") == half
    assert autocast_dtype("float32") == torch.float32


def test_inputs_that_do_not_fit_are_streamed_in_the_same_order():
    inputs = torch.arange(60, dtype=torch.uint8).reshape(20, 3, 1, 1)
    order = torch.randperm(20, generator=generator("o")).split(6)
    in_memory, streamed = BatchLoader(inputs), BatchLoader(inputs)
    streamed.streams = True
    for batch, streamed_batch, index in zip(in_memory(order), streamed(order), order, strict=True):
        assert torch.equal(batch, streamed_batch)
        assert torch.equal(batch.cpu(), inputs[index])
    assert list(streamed([])) == []


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((10**15,), "can't allocate memory: you tried to allocate"),
        ((10**18, 128), "Storage size calculation overflowed"),
        ((10**20,), "Overflow when unpacking long"),
    ],
)
def test_a_tensor_that_is_too_large_is_known_by_its_error(shape, said):
    with pytest.raises((RuntimeError, TypeError)) as info:
        torch.empty(shape)
    assert said in out_of_memory(info.value)
    assert "\n" not in out_of_memory(info.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), TypeError(), ValueError("x")])
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    assert out_of_memory(error) == ""
    assert out_of_memory(MemoryError()) == "out of memory"
