"""A transformer of somebody else's as a representation of texts: tokens in, one vector a text out.

It knows ids of tokens. Which text they were is the dataset's knowledge.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gin
import torch
from torch import Tensor, nn

from monosem.core.fields import PathField, Range
from monosem.core.files import known_digest
from monosem.core.identity import digest
from monosem.core.stage import StageError
from monosem.data.dataset import Dataset
from monosem.data.text import TextDataset
from monosem.data.tokens import Tokenizer, package_hint
from monosem.learning.adapters import count_only
from monosem.models.representation import GetArtifact, Representation, freeze

Pool = Literal["mean", "first", "last"]

CONFIG = "config.json"


@gin.register
@dataclass(frozen=True)
class TextEncoder(Representation):
    """The hidden states of a pretrained transformer, pooled over the tokens of a text.

    It reads the folders of the transformers library (config.json and *.safetensors or *.bin), of
    encoders such as BERT and decoders such as Llama. It takes what lies there: nothing is
    downloaded, and no code of the folder is run.

    weights: the folder; 'package:NAME/FOLDER' is one inside an installed package. What it holds is
        in the key, its place is not.
    layer: the hidden layer, as transformers numbers them: 0 the embeddings of the tokens, 1 the
        first block. None is the last one.
    pool: over the tokens of a text: their mean (as sentence-transformers/all-MiniLM-L6-v2), the
        first one (BERT's class token), or the last one (of decoders, the only one that has seen
        all others).
    """

    weights: PathField
    layer: Annotated[int, Range(0)] | None = None
    pool: Pool = "mean"

    def validate(self) -> None:
        if self.layer is None or not Path(self.weights).exists():  # a missing one: see `content`
            return
        layers = self._config.num_hidden_layers
        if self.layer > layers:
            reason = f"must be from 0, the embeddings, to {layers}, the last, got {self.layer}"
            self.refuse("layer", reason)

    def content(self) -> str:
        _ = self._config  # another architecture is refused before anything runs
        files = sorted(_files_of_weights(Path(self.weights)))
        if not files:
            self.refuse(
                "weights",
                f"must hold the weights, *.safetensors or *.bin, got {self.weights} without them",
            )
        return digest([known_digest(path) for path in (*files, Path(self.weights, CONFIG))])

    def incompatibility(self, data: Dataset) -> str | None:
        if not isinstance(data, TextDataset):
            return f"must be texts, as TextEncoder takes them, got {type(data).__name__}"
        if data.tokenizer.content() != self._tokenizer.content():
            return (
                "must have the tokenizer of TextEncoder.weights, "
                f"{self.weights}, got that of {data.tokenizer.folder}"
            )
        longest = getattr(self._config, "max_position_embeddings", None)
        if longest is not None and data.length > longest:
            return f"must have length of at most {longest}, as TextEncoder takes, got {data.length}"
        return None

    @property
    def width(self) -> int:
        return int(self._config.hidden_size)

    @property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.weights)

    @property
    def _config(self) -> Any:
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

    def skeleton(self) -> nn.Module:
        import transformers

        with _quiet(), torch.device("meta"):  # its weights may be large
            return transformers.AutoModel.from_config(self._config)

    def network(self, get: GetArtifact) -> nn.Module:
        layer = self._config.num_hidden_layers if self.layer is None else self.layer
        model = _with_shared_weights(_read_model(self.weights, self.content()))
        return freeze(PooledTransformer(model, self._tokenizer.pad, layer, self.pool))


class PooledTransformer(nn.Module):
    """ids (n, tokens) int64, padded behind the text -> (n, width).

    model: a transformer of the transformers library, without a head.
    pad: the id that fills up a text.
    layer: whose hidden states are pooled.
    pool: how.
    """

    def __init__(self, model: nn.Module, pad: int, layer: int, pool: Pool):
        super().__init__()
        self.model = model
        self.pad, self.layer, self.pool = pad, layer, pool

    def forward(self, ids: Tensor) -> Tensor:
        mask = ids != self.pad
        mask[:, 0] = True  # a text that lost all its words still is one token
        count_only(self.model, mask)
        output = self.model(
            input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, use_cache=False
        )
        return pooled(output.hidden_states[self.layer], mask, self.pool)


def pooled(states: Tensor, mask: Tensor, pool: Pool) -> Tensor:
    """One vector a text.

    states: (n, tokens, width).
    mask: (n, tokens), True where there is a token and no padding.
    Returns (n, width).
    """
    if pool == "mean":
        weights = mask / mask.sum(1, keepdim=True)
        return torch.einsum("nt,ntd->nd", weights.to(states.dtype), states)
    if pool == "first":
        return states[:, 0]
    last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
    return states[torch.arange(len(states), device=mask.device), last]


@functools.lru_cache(maxsize=1)
def _read_model(folder: str, content: str) -> nn.Module:
    """Read once for all networks of a curve, which share its weights.

    content: the digest of the files, so that files that have changed are read again.
    """
    import transformers

    with _quiet():
        model, report = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    # Where weights are missing, transformers draws some. Those of a pooler are not used.
    missing = sorted(name for name in report["missing_keys"] if not _is_of_pooler(name))
    if missing:
        raise StageError(
            f"TextEncoder.weights must hold all weights of {type(model).__name__}; "
            f"{len(missing)} are missing from {folder}, {missing[0]} for example"
        )
    return freeze(model)


def _with_shared_weights(model: nn.Module) -> nn.Module:
    """A copy whose modules can be exchanged; its weights lie where those of the model lie."""
    shared = {id(w): nn.Parameter(w.data, requires_grad=False) for w in model.parameters()}
    return copy.deepcopy(model, shared)


def _is_of_pooler(name: str) -> bool:
    return name.startswith("pooler.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
