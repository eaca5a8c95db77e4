"""TODO."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from monosem.core.identity import seed_for


@functools.cache
def device() -> torch.device:
    """The one place that says where tensors live: the first GPU that torch sees, else the CPU. Deterministic either way."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # torch would also fill memory that nobody has written yet, a twentieth of a step; nothing here reads such memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


M = TypeVar("M", bound=nn.Module)


def to_device(module: M) -> M:
    """The module on the device; on a GPU with channels last, which its convolutions want."""
    module.to(device())
    if device().type == "cuda":
        module.to(memory_format=torch.channels_last)
    return module


def compiled(module: M) -> M:
    """The module, compiled where MONOSEM_COMPILE is set, as run.py --compile does: quicker after most of a minute, and rounded
    otherwise. How and not what, so no key knows of it."""
    if not os.environ.get("MONOSEM_COMPILE"):
        return module
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # where there is no GPU it warns of that
    return cast(M, torch.compile(module))


class BatchLoader:
    """Inputs by index, on the device: kept there if they take up at most half of what is free, else gathered where they are,
    a memory map say, by a thread that is one batch ahead, and sent from pinned memory.

    inputs: (n, ...), as a dataset stores them.
    """

    def __init__(self, inputs: Tensor):
        self.streams = device().type == "cuda" and inputs.nbytes > torch.cuda.mem_get_info()[0] / 2
        self.inputs = inputs if self.streams else inputs.to(device())

    def __call__(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """order: for every batch, which images -> the batches, on the device."""
        if not self.streams:
            yield from (self.inputs[index] for index in order)
            return
        with ThreadPoolExecutor(1) as thread:
            indices = iter(order)
            ahead = (
                thread.submit(self._gather, first)
                if (first := next(indices, None)) is not None
                else None
            )
            while ahead is not None:
                batch = ahead.result()
                ahead = (
                    thread.submit(self._gather, index)
                    if (index := next(indices, None)) is not None
                    else None
                )
                yield batch.to(device(), non_blocking=True)

    def _gather(self, index: Tensor) -> Tensor:
        batch = self.inputs[index.cpu()]
        return batch.pin_memory() if torch.cuda.is_available() else batch


@contextlib.contextmanager
def seeded(*what: object) -> Iterator[None]:
    """Inside, torch's CPU generator (which nn.Module initialisers draw from) is seeded by `what`; outside it is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(*what))
        yield


# ------------------------------------------------------------------------------------------------ the loop

Precision = Literal["float32", "float16", "bfloat16"]


def autocast_dtype(precision: Precision) -> torch.dtype:
    """What products are made in: what is asked for on a GPU; for either half on a CPU bfloat16 where it has instructions for
    that (AVX-512 BF16, AMX), which halves the time of a step, else float32."""
    if device().type == "cuda" or precision == "float32":
        return getattr(torch, precision)
    quick = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.bfloat16 if quick else torch.float32
