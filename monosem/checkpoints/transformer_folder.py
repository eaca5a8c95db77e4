"""A folder of the transformers library: its architecture, its weights, and how they are loaded.

transformers is an optional package, imported when a folder is first used. Nothing is downloaded,
and no code of a folder is run. How weights are loaded changes no key: flags of the command line
set environment variables, which the workers of a sweep are given too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from monosem.core.device import device
from monosem.core.fields import Part, PathField, package_hint
from monosem.core.files import known_digest
from monosem.core.identity import digest
from monosem.core.stage import StageError

CONFIG = "config.json"
HALF, CHECKPOINTING, SHARD = "MONOSEM_HALF", "MONOSEM_CHECKPOINTING", "MONOSEM_SHARD"


def is_set(flag: str) -> bool:
    """Whether a flag of how was typed: HALF, CHECKPOINTING or SHARD."""
    return bool(os.environ.get(flag))


def bytes_of_weight() -> int:
    """What one weight of a language model takes: 4, or 2 with --half."""
    return 2 if is_set(HALF) else 4


@dataclass(frozen=True)
class TransformerFolder(Part):
    """A pretrained transformer: config.json and *.safetensors or *.bin in a folder.

    head: the class of transformers that reads it, for what stands on top of the transformer.
    architecture: what the name of its class ends in; '' takes any.

    weights: the folder; 'package:NAME/FOLDER' is one inside an installed package. What it holds is
        in the key, its place is not.
    """

    head: ClassVar[str] = "AutoModel"
    architecture: ClassVar[tuple[str, ...]] = ()
    weights: PathField

    def content(self) -> str:
        _ = self.config  # another architecture is refused before anything runs
        files = sorted(_files_of_weights(Path(self.weights)))
        if not files:
            self.refuse(
                "weights",
                f"must hold the weights, *.safetensors or *.bin, got {self.weights} without them",
            )
        return digest([known_digest(path) for path in (*files, Path(self.weights, CONFIG))])

    @property
    def config(self) -> Any:
        """The architecture, as transformers describes it."""
        if not Path(self.weights).is_dir():
            self.refuse(
                "weights", f"must be a folder, got {self.weights}{package_hint(self.weights)}"
            )
        if not Path(self.weights, CONFIG).is_file():
            self.refuse("weights", f"must hold {CONFIG}, got {self.weights} without it")
        if importlib.util.find_spec("transformers") is None:
            self.refuse("weights", "needs transformers: pip install transformers")
        try:
            config = _read_config(self.weights, Path(self.weights, CONFIG).stat().st_mtime_ns)
        except (OSError, ValueError, KeyError) as error:
            first_line = str(error).strip().partition("\n")[0]
            self.refuse("weights", f"must hold the {CONFIG} of a transformer: {first_line}")
        if config.is_encoder_decoder or not getattr(config, "vocab_size", None):
            self.refuse(
                "weights",
                "must be an encoder or a decoder of tokens, such as BERT or Llama, "
                f"got {config.model_type}",
            )
        return config

    def check_architecture(self) -> None:
        """Refuse a folder whose transformer has another head than is wanted."""
        names = self.config.architectures or ()
        if self.architecture and not any(name.endswith(self.architecture) for name in names):
            wanted = " or ".join(self.architecture)
            found = ", ".join(names) or "no name of a class"
            self.refuse("weights", f"must be of a class *{wanted}, got {found} in {self.weights}")

    def bare(self) -> nn.Module:
        """The network on the meta device: layers and shapes without weights, as these are large."""
        import transformers

        with quiet(), torch.device("meta"):
            network: nn.Module = getattr(transformers, self.head).from_config(self.config)
        return network

    def loaded(self, **how: Any) -> nn.Module:
        """The network with its weights, which are float32 on the CPU unless `how` says otherwise.

        how: what from_pretrained of transformers takes.
        Raises StageError where weights are missing.
        """
        import transformers

        with quiet():
            model, report = getattr(transformers, self.head).from_pretrained(
                self.weights,
                local_files_only=True,
                output_loading_info=True,
                **{"dtype": torch.float32, **how},
            )
        # Where weights are missing, transformers draws some. Those of a pooler are not used.
        missing = sorted(name for name in report["missing_keys"] if not _is_of_pooler(name))
        if missing:
            raise StageError(
                f"{type(self).__name__}.weights must hold all weights of {type(model).__name__}; "
                f"{len(missing)} are missing from {self.weights}, {missing[0]} for example"
            )
        return model

    def placed(self) -> nn.Module:
        """The network where it is to work, in evaluation mode and frozen.

        In bfloat16 with --half; with --shard its layers are spread over what devices there are.
        """
        how: dict[str, Any] = {"dtype": torch.bfloat16} if is_set(HALF) else {}
        if is_set(SHARD):
            how["device_map"] = "auto"
        model = self.loaded(**how)
        if not is_set(SHARD):
            model.to(device())
        return model.eval().requires_grad_(False)


def keep_inputs_alone(network: nn.Module) -> None:
    """Let every block of a transformer keep its input alone and compute the rest again."""
    # the second is its name in earlier versions of transformers
    for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
        if enable := getattr(network, name, None):
            enable({"use_reentrant": False})
            return


def _is_of_pooler(name: str) -> bool:
    return name.startswith("pooler.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers tells nothing of what it loads: its bars and a table of unused heads."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def _files_of_weights(folder: Path) -> list[Path]:
    """Those that transformers would read: *.safetensors, or else *.bin."""
    return [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]


@functools.cache
def _read_config(folder: str, changed_at: int) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True)
