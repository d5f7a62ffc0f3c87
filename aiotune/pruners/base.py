"""The pruner's contract: has a running trial still a chance?"""

from __future__ import annotations

from abc import ABC, abstractmethod

from aiotune.history import History
from aiotune.objective import Objective
from aiotune.trial import Run, Trial

__all__ = ["Pruner"]


class Pruner(ABC):
    """Looks at each report of a run, and at each end of a repeat, and says which trials need not go on.

    Plain synchronous Python that answers within a millisecond. It may keep caches, but only such as can be
    derived from the history that it is given; they are good for every view of one `history.lineage`. Same facts
    in the same order, same answers. `a & b` ends what both would end, `a | b` what either would.
    """

    @abstractmethod
    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        """Return why `trial`, of which `run` has just reported, is ended now, in words; None: it goes on.

        Its newest report is the last of `run.observations`; `trial.curve(run)` has those of earlier rungs, too.
        """

    def judge_repeats(self, history: History, trial: Trial) -> str | None:
        """Return why `trial`, a repeat of which has ended, gets no further one, in words; None: it does."""
        return None

    def check(self, objective: Objective, repeats: int) -> None:  # noqa: B027  # most rules suit every search
        """Raise FatalValueError if the rule can have no effect in a search of that kind."""
