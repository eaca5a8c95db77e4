"""The device: where tensors live, how they get there, and what they are computed in."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from monosem.core.identity import seed_for

DEVICE = "MONOSEM_DEVICE"  # the environment variable that --device sets

TOO_LARGE = (  # torch has no class of errors for these
    "can't allocate memory",
    "Storage size calculation overflowed",
    "Overflow when unpacking long",
)

Module = TypeVar("Module", bound=nn.Module)
Precision = Literal["float32", "float16", "bfloat16"]


@functools.cache
def device() -> torch.device:
    """The one place that says where tensors live: what MONOSEM_DEVICE says, as --device does.

    Unless it is set, the first GPU that torch sees, else the CPU. Deterministic in any case.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # as use_deterministic_algorithms(True, warn_only=True), which imports torch's compiler (0.8 s)
    torch.set_deterministic_debug_mode("warn")
    # torch would also fill memory that nobody has written to yet, which takes a twentieth of a
    # step; nothing here reads such memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(os.environ.get(DEVICE) or usual)
    if chosen.index is not None:
        torch.cuda.set_device(chosen)  # what asks for the current GPU means this one
    return chosen


def out_of_memory(error: Exception) -> str:
    """What torch says where a tensor is too large, in one line; '' of any other error."""
    first_line = f"{error} ".splitlines()[0].strip()
    is_meant = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if is_meant or any(sign in str(error) for sign in TOO_LARGE):
        return first_line.rpartition("DefaultCPUAllocator: ")[2] or "out of memory"
    return ""


def to_device(module: Module) -> Module:
    """The module on the device; on a GPU with channels last, which its convolutions want."""
    module.to(device())
    if device().type == "cuda":
        module.to(memory_format=torch.channels_last)
    return module


def compiled(module: Module) -> Module:
    """The module, compiled where MONOSEM_COMPILE is set, as --compile does.

    It takes most of a minute, is quicker then and rounds otherwise. That is how and not what, so no
    key knows of it.
    """
    if not os.environ.get("MONOSEM_COMPILE"):
        return module
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns without a GPU
    torch.use_deterministic_algorithms(True, warn_only=True)  # tells the compiler too
    return cast(Module, torch.compile(module))


def autocast_dtype(precision: Precision) -> torch.dtype:
    """What products are computed in.

    On a GPU what is asked for. On a CPU either half is bfloat16 where there are instructions for it
    (AVX-512 BF16, AMX), which halves the time of a step, else float32.
    """
    if device().type == "cuda" or precision == "float32":
        return getattr(torch, precision)
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.bfloat16 if has_instructions else torch.float32


@contextlib.contextmanager
def seeded(*what: object) -> Iterator[None]:
    """Inside, torch's CPU generator is seeded by `what`; outside it is untouched.

    The initialisers of nn.Module draw from that generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(*what))
        yield


@contextlib.contextmanager
def draws_of_layers() -> Iterator[None]:
    """Inside, `seed_layers` may be called; outside, torch's own generators are untouched."""
    devices = [torch.cuda.current_device()] if device().type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def seed_layers(*what: object) -> None:
    """Seed what dropout draws from: torch's own generators, as no other can be handed to it."""
    torch.manual_seed(seed_for(*what))


def get_draws() -> list[Tensor]:
    """The state of what dropout draws from, on the CPU and on each GPU."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def set_draws(state: Sequence[Tensor]) -> None:
    """Set what `get_draws` gave. On a machine with other GPUs, theirs stay as they are."""
    of_cpu, *of_gpus = (each.cpu() for each in state)
    torch.set_rng_state(of_cpu)
    if len(of_gpus) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(of_gpus)


class BatchLoader:
    """Inputs by index, on the device.

    They are kept there if they take up at most half of what is free. Else they stay where they are,
    in a memory map say, and a thread that is one batch ahead gathers them and sends them from
    pinned memory.

    inputs: (n, ...), as a dataset stores them.
    """

    def __init__(self, inputs: Tensor):
        self.streams = device().type == "cuda" and inputs.nbytes > torch.cuda.mem_get_info()[0] / 2
        self.inputs = inputs if self.streams else inputs.to(device())

    def __call__(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """The batches, on the device. order: for every batch, the indices of its inputs, (b,)."""
        if self.streams:
            yield from self._stream(order)
        else:
            yield from (self.inputs[indices] for indices in order)

    def _stream(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1) as thread:
            ahead: Future[Tensor] | None = None
            for indices in order:
                ready, ahead = ahead, thread.submit(self._gather, indices)
                if ready is not None:
                    yield ready.result().to(device(), non_blocking=True)
            if ahead is not None:
                yield ahead.result().to(device(), non_blocking=True)

    def _gather(self, indices: Tensor) -> Tensor:
        batch = self.inputs[indices.cpu()]
        return batch.pin_memory() if torch.cuda.is_available() else batch
