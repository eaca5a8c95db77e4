"""Corruptions of an evaluation: of training labels, of training examples, of test inputs.

`base.py` has the three hooks and the rule of paired noise. A corruption is one class that overrides
one of them; a new one is one file in this folder. They know data, and read files of labels safely.
They must not know probes, encoders, stages or Gin files.
"""
