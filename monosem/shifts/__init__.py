"""Test sets of another domain than a probe's training set, and how their classes are matched.

`base.py` has what they share and `OtherSet`, for any dataset; then one file for each family of
published sets. They know datasets and packs. They must not know probes, encoders, stages, tables
or Gin files.
"""
