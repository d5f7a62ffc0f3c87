"""What a run reported, in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

from aiotune.trial import Observation

__all__ = ["Observations"]


class Observations(Sequence[Observation]):
    """A list of observations that grows at its end. Each is made where it is asked for.

    A search may have a million: as objects they would be looked through whenever garbage is collected, which
    holds up the event loop. Columns of plain values are not.

    Invariant: a step is there before its metrics, whose number is the length. A thread that reads while another
    one adds sees whole observations.
    """

    __slots__ = ("_metrics", "_steps")
    __hash__ = None  # type: ignore[assignment]  # it grows

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        self._steps: list[int] = []
        self._metrics: list[Mapping[str, float]] = []
        for each in observations:
            self.add(each.step, each.metrics)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        self._steps.append(step)
        self._metrics.append(metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def __iter__(self) -> Iterator[Observation]:
        return map(Observation, self._steps, self._metrics)

    @overload
    def __getitem__(self, index: int) -> Observation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Observation]: ...
    def __getitem__(self, index: int | slice) -> Observation | Sequence[Observation]:
        found = range(len(self))[index]
        if isinstance(found, range):
            return list(map(self._at, found))
        return self._at(found)

    def _at(self, index: int) -> Observation:
        return Observation(self._steps[index], self._metrics[index])

    def __eq__(self, other: object) -> bool:
        """Tell whether a sequence, of whatever type, holds the same."""
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Observations({list(self)!r})"
