"""Which values held from which epoch to which: what population based training finds beside a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.labels import is_scalar
from aiotune.space import Scalar
from aiotune.trial import RunState, Trial

__all__ = ["Schedule", "Stage", "schedule_of"]


@dataclass(frozen=True, slots=True)
class Stage:
    """The values that held from epoch `from_epoch` (0-based) up to, not including, `to_epoch`.

    stream: that of the trial which had them: its chance derives from it.
    """

    from_epoch: int
    to_epoch: int
    values: Mapping[str, Scalar]
    stream: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The stages of one training, in their order, without a gap.

    seed: that of the search which found it, so that it can be trained again with the same chance; None: another
    one is drawn. FatalTypeError, FatalValueError for stages that are none.
    """

    stages: tuple[Stage, ...]
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages:
            raise FatalValueError("a schedule needs a stage at least")
        reached = 0
        for stage in self.stages:
            _check(stage, reached)
            reached = stage.to_epoch

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    @property
    def epochs(self) -> int:
        """How many epochs it has in all."""
        return self.stages[-1].to_epoch

    def at(self, epoch: int) -> Mapping[str, Scalar]:
        """Return the values that hold in an epoch, 0-based. FatalValueError beyond the last one."""
        for stage in self.stages:
            if stage.from_epoch <= epoch < stage.to_epoch:
                return stage.values
        raise FatalValueError(f"the schedule has the epochs 0 to {self.epochs - 1}, not {epoch}")

    def __str__(self) -> str:
        lines = [f"epochs {each.from_epoch} to {each.to_epoch}: {each.values}" for each in self]
        return "\n".join(lines)

    def get_config(self) -> dict[str, Any]:
        """Return the schedule in plain JSON values."""
        stages = [{**asdict(each), "values": dict(each.values)} for each in self.stages]
        return {"seed": self.seed, "stages": stages}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """Return the schedule that `get_config` described. FatalValueError for anything else."""
        try:
            return cls(tuple(Stage(**each) for each in config["stages"]), config.get("seed"))
        except (TypeError, KeyError, AttributeError) as error:
            raise FatalValueError(f"this is no schedule that was saved: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write it to a JSON file."""
        Path(path).write_text(json.dumps(self.get_config(), indent=2), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Return what `save` wrote. FatalValueError for another file."""
        try:
            config = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise FatalValueError(f"{path} is no schedule that was saved: {error}") from error
        return cls.from_config(config)


def schedule_of(trials: Iterable[Trial], trial: Trial, seed: int | None = None) -> Schedule:
    """Return what `trial`, and those that it descends from, were trained with.

    FatalValueError for a trial without a budget: its epochs are not known.
    """
    by_id = {each.trial_id: each for each in trials}
    line = [trial]
    while line[0].parent is not None:
        line.insert(0, by_id[line[0].parent])
    begins = [_begin(each) for each in line]
    ends = [*begins[1:], _end(trial)]
    stages = [
        Stage(begin, end, dict(each.values), each.stream)
        for each, begin, end in zip(line, begins, ends, strict=True)
    ]
    return Schedule(tuple(stages), seed)


def _begin(trial: Trial) -> int:
    """Return the epoch at which the trial began."""
    budgets = [*(run.budget for run in trial.runs), trial.budget]
    if budgets[0] is None:
        raise FatalValueError(
            f"trial {trial.trial_id} has no budget of epochs: only population based training and the like have "
            "schedules"
        )
    return budgets[0].initial_epoch


def _end(trial: Trial) -> int:
    """Return the epoch up to which the trial was trained; where it broke, up to which its score counts."""
    ends: list[int] = []
    for run in trial.runs:
        if run.state is RunState.FINISHED and run.budget is not None:
            ends.append(run.budget.epochs)
        elif run.state is RunState.STOPPED and run.observations:
            ends.append(run.observations[-1].step + 1)
    if not ends:
        raise FatalValueError(f"trial {trial.trial_id} was not trained to the end of any interval")
    return max(ends)


def _check(stage: Stage, reached: int) -> None:
    """Raise for a stage that does not follow on `reached` epochs."""
    ends = (stage.from_epoch, stage.to_epoch)
    if not all(type(each) is int for each in (*ends, stage.stream)):
        raise FatalTypeError(f"{stage}: epochs and stream must be whole numbers")
    if stage.from_epoch != reached or stage.to_epoch <= reached:
        raise FatalValueError(f"{stage}: it must begin at epoch {reached}, and end later")
    if not all(isinstance(name, str) and is_scalar(each) for name, each in stage.values.items()):
        raise FatalTypeError(f"{stage}: values must be texts, numbers, booleans or None, by name")
