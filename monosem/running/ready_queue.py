"""In which order groups of stages are computed when each may start as soon as it can.

A group is one trial: stages that share work, mostly one alone. Knows no Ray.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from monosem.core.stage import Stage, key

Group = tuple[Stage, ...]


def name_of(group: Group) -> str:
    """A group is called by the key of its first stage."""
    return key(group[0])


class ReadyQueue:
    """Hands out a group when everything that it needs of the others is finished.

    groups: the first in order goes first.
    """

    def __init__(self, groups: Sequence[Group]):
        owners = {key(stage): name_of(group) for group in groups for stage in group}
        self.groups = {name_of(group): group for group in groups}
        self.ranks = {name: rank for rank, name in enumerate(self.groups)}
        self.needs = {name: _needs(group, owners) for name, group in self.groups.items()}
        self.needed_by: dict[str, list[str]] = {name: [] for name in self.groups}
        self.ready: list[tuple[int, str]] = []  # a heap by rank
        for name, needs in self.needs.items():
            for above in needs:
                self.needed_by[above].append(name)
            if not needs:
                self._add(name)

    def pop(self) -> Group | None:
        """The next group; None: nothing can start before something else is finished."""
        if not self.ready:
            return None
        _, name = heapq.heappop(self.ready)
        return self.groups[name]

    def finish(self, name: str) -> None:
        """A group is finished, which may make others ready."""
        for below in self.needed_by[name]:
            self.needs[below].remove(name)
            if not self.needs[below]:
                self._add(below)

    def _add(self, name: str) -> None:
        heapq.heappush(self.ready, (self.ranks[name], name))


def _needs(group: Group, owners: dict[str, str]) -> set[str]:
    """The names of the other groups that must be finished before this one."""
    needs = set()
    for stage in group:
        for above in stage.upstream():
            if key(above) in owners:
                needs.add(owners[key(above)])
    return needs
