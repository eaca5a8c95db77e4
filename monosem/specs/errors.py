"""What may be wrong with a spec or a cluster. Imports nothing heavy."""

from __future__ import annotations


class SpecError(ValueError):
    """A spec that cannot be meant. The message is one line for the person who typed it."""


class ClusterError(RuntimeError):
    """There is no such cluster, or it has not what is asked of it."""
