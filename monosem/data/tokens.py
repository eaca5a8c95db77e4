"""The tokenizer of a transformers folder: from texts to numbers of tokens, and back.

transformers is an optional package, imported when a tokenizer is first used. Nothing is downloaded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin

from monosem.core.fields import Part, PathField, package_hint
from monosem.core.files import known_digest

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip


@gin.register
@dataclass(frozen=True)
class Tokenizer(Part):
    """The tokenizer of a language model, from a folder as transformers writes it.

    folder: holds tokenizer.json, or the vocabulary files of an older tokenizer. The content of
        these files is in the key, the place is not.
    """

    folder: PathField

    def content(self) -> str:
        states = [(path.name, known_digest(path)) for path in self._files()]
        return hashlib.sha256(json.dumps(states).encode()).hexdigest()

    def encode(self, texts: Sequence[str], length: int) -> list[list[int]]:
        """The tokens of every text, special ones included; at most `length`, the rest is cut off.

        texts: one or more.
        """
        loaded = self._loaded().tokenizer
        tokens: list[list[int]] = loaded([*texts], truncation=True, max_length=length)["input_ids"]
        return tokens

    def encode_open(self, text: str) -> list[int]:
        """The tokens of a text that goes on: with what begins every text, without what ends it."""
        loaded = self._loaded()
        return [*loaded.beginning, *loaded.encode_plain(text)]

    def knows(self, tokens: Iterable[int]) -> bool:
        """Whether none of the tokens stands for what is not in the vocabulary."""
        return self._loaded().tokenizer.unk_token_id not in tokens

    @property
    def end(self) -> int | None:
        """The token that ends a text, where there is one."""
        end: int | None = self._loaded().tokenizer.eos_token_id
        return end

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without the special ones."""
        loaded = self._loaded()
        return loaded.decode(tuple(token for token in tokens if token not in loaded.special))

    @property
    def pad(self) -> int:
        """The token that fills a row up: one that no text has."""
        return self._loaded().pad

    def _files(self) -> list[Path]:
        folder = Path(self.folder)
        if not folder.is_dir():
            self.refuse(
                "folder",
                f"must be a folder with a tokenizer, got {folder}{package_hint(self.folder)}",
            )
        files = [folder / name for name in FILES if (folder / name).is_file()]
        if not files:
            present = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            self.refuse(
                "folder",
                f"must hold a tokenizer ({', '.join(FILES[:2])}); {folder} holds {present}",
            )
        return files

    def _loaded(self) -> LoadedTokenizer:
        return _load(self, self.content())


class LoadedTokenizer:
    """A tokenizer of transformers, and what its tokens are.

    tokenizer: as AutoTokenizer gives it.
    """

    def __init__(self, tokenizer: Any, pad: int):
        self.tokenizer = tokenizer
        self.pad = pad
        fast = getattr(tokenizer, "backend_tokenizer", None)
        if fast is not None:  # some files say that everything is padded to one length
            fast.no_padding()
            fast.no_truncation()
        self.special = {*tokenizer.all_special_ids, pad} - {tokenizer.unk_token_id}

    @functools.cached_property
    def beginning(self) -> list[int]:
        """The special tokens that every text begins with."""
        plain, full = self.encode_plain("a"), list(self.tokenizer("a")["input_ids"])
        starts = (at for at in range(len(full)) if full[at : at + len(plain)] == plain)
        return full[: next(starts, 0)]

    def encode_plain(self, text: str) -> list[int]:
        """The tokens of a text, without special ones."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: tuple[int, ...]) -> str:
        text: str = self.tokenizer.decode([*tokens], clean_up_tokenization_spaces=True)
        return text.strip()


@functools.lru_cache(maxsize=8)
def _load(part: Tokenizer, content: str) -> LoadedTokenizer:
    """content: the digest of the files, so that files that have changed are read again."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns where a process forks
    try:
        from transformers import AutoTokenizer
    except ImportError:
        part.refuse("folder", "needs transformers: pip install transformers")
    try:
        tokenizer = AutoTokenizer.from_pretrained(part.folder, local_files_only=True)
    except Exception as error:  # of all kinds, by what is wrong with the files
        reason = f"{error} ".splitlines()[0].strip()
        part.refuse("folder", f"must hold a tokenizer that transformers can read: {reason}")
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    pad = next((token for token in candidates if token is not None), None)
    if pad is None:
        part.refuse("folder", "must hold a tokenizer with a token to pad with: it has none")
    return LoadedTokenizer(tokenizer, pad)
