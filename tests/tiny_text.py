"""Tiny random transformers with a tokenizer, in folders as transformers writes: no download."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

WORDS = ["a", "an", "the", "film", "story", "plot", "is", "was", "not", "very", "and", "but"]
WORDS += ["good", "great", "fine", "bad", "awful", "dull", "he", "she", "it"]
WIDTH, LAYERS = 16, 3


def write_tokenizer(folder: Path, words: list[str] = WORDS) -> None:
    """A tokenizer of whole words with BERT's special tokens: [CLS] text [SEP], padded by [PAD]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *words, ".", ",", "!"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict(zip(names, special, strict=True)),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tiny_bert(folder: Path, seed: int = 0, **changes: object) -> Path:
    """BERT with 3 layers of 16 features, its weights drawn, and its tokenizer."""
    from transformers import BertConfig, BertModel

    write_tokenizer(folder)
    config = BertConfig(
        **{
            "vocab_size": len(WORDS) + 8,
            "hidden_size": WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": 40,
            "initializer_range": 0.3,
            **changes,
        }
    )
    return _saved(BertModel, config, folder, seed)


def tiny_llama(folder: Path, seed: int = 0, words: list[str] = WORDS, **changes: object) -> Path:
    """Llama with 3 layers of 16 features and its next-word head, its weights drawn."""
    from transformers import LlamaConfig, LlamaForCausalLM

    write_tokenizer(folder, words)
    config = LlamaConfig(
        **{
            "vocab_size": len(words) + 8,
            "hidden_size": WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": 64,
            "initializer_range": 0.3,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            **changes,
        }
    )
    return _saved(LlamaForCausalLM, config, folder, seed)


def _saved(kind: type, config: object, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder)
    return folder


def archive_of(files: dict[str, bytes]) -> bytes:
    """A gzipped tar of files by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def ratings_of(index: int) -> list[int]:
    """Four raters: the first disagrees with every third text, the last one never decides."""
    sign = 1 if index % 2 else -1
    return [-sign if index % 3 == 0 else sign, 3 * sign, 2 * sign, 0]


def write_vader(
    path: Path,
    rows: int = 40,
    text: Callable[[int], str] = lambda i: f"it was {i} {WORDS[i % 18]}",
    domains: Sequence[str] = ("movieReviewSnippets",),
) -> str:
    """The same reviews for every one of some domains, in the layout of vaderSentiment's sdist."""
    texts, ratings = [], []
    for index in range(rows):
        given = ratings_of(index) if index != 7 else [1, -1, 0, 0]  # text 7 is neither
        mean = sum(given) / 4
        texts.append(f"1_{index}\t{mean}\t{text(index)}")
        ratings.append(f"1_{index}\t{mean}\t0.5\t{given}")
    tables = {
        "GroundTruth": "\r\n".join(texts).encode(),
        "anonDataRatings": ("\ufeff" + "\r\n".join(ratings[::-1])).encode(),
    }
    inner = archive_of(
        {
            f"hutto_ICWSM_2014/{domain}_{name}.txt": content
            for domain in domains
            for name, content in tables.items()
        }
    )
    path.write_bytes(archive_of({"v/additional_resources/hutto_ICWSM_2014.tar.gz": inner}))
    return str(path)
