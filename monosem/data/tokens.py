"""The tokenizer of a transformers folder: from texts to numbers of tokens, and words among them.

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

from monosem.core.fields import Part, PathField
from monosem.core.files import known_digest

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
STARTS_A_WORD = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write a space
GOES_ON = "##"  # how WordPiece marks a token inside a word


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

    def encode_word(self, word: str) -> list[int]:
        """The tokens of a word inside a text: no special ones."""
        loaded = self._loaded()
        return loaded.encode_plain(f" {word}" if loaded.marks_starts else word)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without the special ones."""
        loaded = self._loaded()
        return loaded.decode(tuple(token for token in tokens if token not in loaded.special))

    def words(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Where words are: (first, after the last) position of each; special tokens are in none.

        A word is a token that starts one and those that go on with it. Signs such as a comma are
        words of their own, if the tokenizer keeps them apart, and are left out.
        """
        loaded = self._loaded()
        spans: list[tuple[int, int]] = []
        is_open = False
        for position, token in enumerate(tokens):
            if token in loaded.special:
                is_open = False
            elif is_open and not loaded.starts_word(token):
                spans[-1] = (spans[-1][0], position + 1)
            else:
                spans.append((position, position + 1))
                is_open = True
        return [
            (first, end)
            for first, end in spans
            if any(map(str.isalnum, loaded.spell(tokens[first:end])))
        ]

    def spell(self, word: Sequence[int]) -> str:
        """The text of the tokens of a word."""
        return self._loaded().spell(word)

    @property
    def pad(self) -> int:
        """The token that fills a row up: one that no text has."""
        return self._loaded().pad

    def _files(self) -> list[Path]:
        folder = Path(self.folder)
        if not folder.is_dir():
            self.refuse("folder", f"must be a folder with a tokenizer, got {folder}")
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
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        if self._fast is not None:  # some files say that everything is padded to one length
            self._fast.no_padding()
            self._fast.no_truncation()
        self.special = {*tokenizer.all_special_ids, pad} - {tokenizer.unk_token_id}
        spelling = {token: number for token, number in tokenizer.get_vocab().items()}
        self.goes_on = {number for token, number in spelling.items() if token.startswith(GOES_ON)}
        self.starts = {
            number for token, number in spelling.items() if token.startswith(STARTS_A_WORD)
        }
        self._spelt: dict[tuple[int, ...], str] = {}
        self.marks_starts = bool(self.starts) and not self.goes_on

    def encode_plain(self, text: str) -> list[int]:
        """The tokens of a short text, without special ones; quick, as it is asked word by word."""
        if self._fast is not None:
            return list(self._fast.encode(text, add_special_tokens=False).ids)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: tuple[int, ...]) -> str:
        text: str = self.tokenizer.decode([*tokens], clean_up_tokenization_spaces=True)
        return text.strip()

    def spell(self, word: Sequence[int]) -> str:
        """The text of a word, which is asked for often."""
        key = tuple(word)
        if key not in self._spelt:
            self._spelt[key] = self.decode(key)
        return self._spelt[key]

    def starts_word(self, token: int) -> bool:
        """Whether the token begins a word; of a vocabulary without marks every one does."""
        return token in self.starts if self.marks_starts else token not in self.goes_on


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
