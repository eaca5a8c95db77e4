"""Probes: classifiers of a representation, fitted many at once or fine-tuned.

    losses < batched_probes < base < linear, finetune
    attacks

A curve describes its question as a `Task`; a `Probe` names the stages that it needs and predicts.
An `Attack` changes images so that a network is wrong.
This folder knows corruptions, representations and data. It must not know curves, experiments,
tables or Gin files.
"""
