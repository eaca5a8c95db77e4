"""Language: causal language models, adapters that are tuned on texts, and what these models say.

    decoding, prompts, memory < models < tuning, answers < choices < harm

A `LanguageModel` gives a network that tells the next word; `CausalTransformer` reads one from a
folder and `LanguageTuning` puts an adapter beside it. Measurements are panels of named points.
This folder knows transformers, tokens, prompts and adapters. It must not know experiments, tables
of several models or Gin files.
"""
