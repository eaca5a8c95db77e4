"""How a command ends: its exit code, and the errors that lead to one."""

from __future__ import annotations

# done; a stage failed; the command or the spec is wrong; interrupted; ended by SIGTERM (Slurm)
DONE, FAILED, WRONG, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class UsageError(ValueError):
    """A flag that cannot be meant."""


class RunError(RuntimeError):
    """A run that cannot go on."""
