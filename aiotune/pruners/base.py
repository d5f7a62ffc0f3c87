"""The pruner's contract: has a running trial still a chance? And how two of them are one."""

from __future__ import annotations

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.objective import DefaultObjective, Objective
from aiotune.trial import Run, Trial

__all__ = ["Pruner"]


class Pruner:
    """Looks at each report of a run, and at each end of a repeat, and says which trials need not go on.

    Plain synchronous Python that answers within a millisecond. It may keep caches, but only such as can be
    derived from the history that it is given; they are good for every view of one `history.lineage`. Same
    facts in the same order, same answers. `a & b` ends what both would end, `a | b` what either would.

    judges_reports, judges_ends: whether `judge` ever says no, and whether `judge_repeats` does.
    """

    judges_reports: bool = True
    judges_ends: bool = False

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        """Return why `trial`, of which `run` has just reported, is ended now, in words; None: it goes on.

        Its newest report is the last of `run.observations`; `trial.curve(run)` has those of earlier rungs, too.
        """
        return None

    def judge_repeats(self, history: History, trial: Trial) -> str | None:
        """Return why `trial`, a repeat of which has ended, gets no further one, in words; None: it gets them.

        `trial` is newer than the one that `history` has: its run is over.
        """
        return None

    def check(self, objective: Objective, repeats: int) -> None:
        """Raise FatalValueError if the rule can have no effect in a search of that kind.

        This one refuses a search in which what is reported has no name.
        """
        if self.judges_reports and isinstance(objective, DefaultObjective):
            raise FatalValueError(
                f"{type(self).__name__} compares what runs report, but no objective is given that names the "
                'metric: pass objective="val_loss", and report it with trial.report(step, val_loss=...)'
            )

    def __and__(self, other: Pruner) -> Pruner:
        return _Both(self, other)

    def __or__(self, other: Pruner) -> Pruner:
        return _Either(self, other)


class _Pair(Pruner):
    """Two rules. Both are always asked: each keeps up with the search by what it is asked."""

    sign = ""

    def __init__(self, one: Pruner, other: Pruner) -> None:
        for each in (one, other):
            if not isinstance(each, Pruner):
                raise FatalTypeError(
                    f"pruner {self.sign} {each!r}: a pruner is needed on both sides"
                )
        self._one = one
        self._other = other

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        return self._joined(
            self._one.judge(history, trial, run), self._other.judge(history, trial, run)
        )

    def judge_repeats(self, history: History, trial: Trial) -> str | None:
        return self._joined(
            self._one.judge_repeats(history, trial), self._other.judge_repeats(history, trial)
        )

    def check(self, objective: Objective, repeats: int) -> None:
        self._one.check(objective, repeats)
        self._other.check(objective, repeats)

    def _joined(self, one: str | None, other: str | None) -> str | None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"({self._one!r} {self.sign} {self._other!r})"


class _Both(_Pair):
    """`a & b`."""

    sign = "&"

    def __init__(self, one: Pruner, other: Pruner) -> None:
        super().__init__(one, other)
        self.judges_reports = one.judges_reports and other.judges_reports
        self.judges_ends = one.judges_ends and other.judges_ends
        if not (self.judges_reports or self.judges_ends):
            raise FatalValueError(
                f"{self!r} ends no trial: one looks at reports, the other at the ends of repeats, and never do "
                "both say no: join them with |"
            )

    def _joined(self, one: str | None, other: str | None) -> str | None:
        return f"{one}; {other}" if one is not None and other is not None else None


class _Either(_Pair):
    """`a | b`."""

    sign = "|"

    def __init__(self, one: Pruner, other: Pruner) -> None:
        super().__init__(one, other)
        self.judges_reports = one.judges_reports or other.judges_reports
        self.judges_ends = one.judges_ends or other.judges_ends

    def _joined(self, one: str | None, other: str | None) -> str | None:
        return one if one is not None else other
