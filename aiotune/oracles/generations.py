"""Who of a population goes on and who is replaced, as soon as that is certain: truncation selection.

Jaderberg et al. 2017 (arXiv 1711.09846), section 4.1. Each member has a place, a number. In each generation
the `replaced` worst ones, and all that are broken, give their places to descendants of the `replaced` best.
Nothing here depends on the order in which results come: a decision is made once no further result can change
it.
"""

from __future__ import annotations

from itertools import count

from aiotune.space import unit_draw

__all__ = ["Generation"]


class Generation:
    """One generation of a population: who trains in each place, and the results so far.

    size: how many places there are. replaced: how many members at least give up theirs, at most half. has_news:
    whether anything has changed since it was last set to False.
    """

    def __init__(self, number: int, size: int, replaced: int) -> None:
        self.number = number
        self.members: dict[int, str] = {}  # the trial in each place
        self.has_news = True
        self._size = size
        self._replaced = replaced
        self._results: dict[int, float | None] = {}  # less is better; None: broken
        self._followed: set[int] = set()
        self._undecided: set[int] = set()
        self._ranks: dict[int, int] | None = None

    def enter(self, place: int, trial_id: str) -> None:
        """Note who trains in a place."""
        self.members[place] = trial_id
        self.has_news = True

    def end(self, place: int, result: float | None) -> None:
        """Note what the member in a place has reached, less being better; None: it is broken."""
        self._results[place] = result
        self._ranks = None
        self.has_news = True
        if place not in self._followed:
            self._undecided.add(place)

    def follow(self, place: int) -> None:
        """Note that somebody is in that place of the next generation."""
        self._followed.add(place)
        self._undecided.discard(place)
        self.has_news = True

    @property
    def undecided(self) -> list[int]:
        """The places with a result whose next member is not there yet, in their order."""
        return sorted(self._undecided)

    @property
    def is_done(self) -> bool:
        """Whether every place has a member in the next generation."""
        return len(self._followed) == self._size

    @property
    def unknown(self) -> int:
        """How many results are to come."""
        return self._size - len(self._results)

    @property
    def is_extinct(self) -> bool:
        """Whether all members are broken."""
        return not self.unknown and not self._ranked

    def is_replaced(self, place: int) -> bool:
        """Tell whether the member with a result in this place is replaced, whatever the others reach."""
        rank = self._ranked.get(place)
        return rank is None or rank >= self._size - self._replaced

    def goes_on(self, place: int) -> bool:
        """Tell whether the member in this place is not replaced, whatever the others reach."""
        rank = self._ranked.get(place)
        return rank is not None and rank + self.unknown < self._size - self._replaced

    def may_be_parent(self, place: int) -> bool:
        """Tell whether the member with a result in this place may be among the best in the end."""
        rank = self._ranked.get(place)
        return rank is not None and rank < self._replaced

    def parent_of(self, place: int, seed: int) -> str | None:
        """Return the trial from which the next member in this place descends; None: not certain yet.

        One of the best, each with the same chance. To be asked while the population is not extinct.
        """
        for attempt in count():
            drawn = int(unit_draw(seed, "parent", self.number, place, attempt) * self._size)
            if drawn not in self._results:
                return None
            if self.may_be_parent(drawn):
                is_certain = self._ranked[drawn] + self.unknown < self._replaced
                return self.members[drawn] if is_certain else None
        raise AssertionError("one of the places is that of the best")

    @property
    def _ranked(self) -> dict[int, int]:
        """The rank of each member that is not broken, from 0, among those; of equals the first place leads."""
        if self._ranks is None:
            results = [(each, place) for place, each in self._results.items() if each is not None]
            self._ranks = {place: rank for rank, (_, place) in enumerate(sorted(results))}
        return self._ranks
