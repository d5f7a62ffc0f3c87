"""Names of KerasTuner that aiotune does not have, and what to write instead.

In full: docs/migration.md.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["explanation"]

_PAGE = "See docs/migration.md."

# What people import from KerasTuner's inner modules.
_DEEP = """\
HyperParameters, HyperModel, Objective, Oracle, Tuner, Trial, synchronized: aiotune.<name>
RandomSearch, GridSearch, ...: aiotune.<name>, or aiotune.tuners; their oracles: aiotune.oracles
BaseTuner, MultiExecutionTuner: aiotune.Tuner
HyperParameter, Int, Float, Choice, Boolean, Fixed, serialize, deserialize: aiotune.space
infer_metric_direction: aiotune.objective.infer_direction
TrialStatus: aiotune.trial.TrialState, whose members are the same strings
maybe_distribute: a tuner's distribution_strategy="""

_INSTEAD: Mapping[str, str] = {
    "engine": f"KerasTuner's inner modules are left out. Write instead:\n{_DEEP}",
    "src": f"KerasTuner's inner modules are left out. Write instead:\n{_DEEP}",
    "distribute": "trials run at the same time in one program: there is no chief and there are no workers",
    "protos": "nothing is sent as protocol buffers: use get_config() and from_config()",
    "BaseTuner": "use aiotune.Tuner",
    "MultiExecutionTuner": "use aiotune.Tuner, which takes executions_per_trial",
    "FailedTrialError": "use aiotune.errors.FailedTrialError",
    "FatalError": "use aiotune.errors.FatalError",
    "HyperParameter": "use aiotune.space.HyperParameter",
    "TrialStatus": "use aiotune.trial.TrialState, whose members are the same strings",
}


def explanation(name: str) -> str | None:
    """Return why `aiotune` has no attribute `name`, and what to write instead; None if KerasTuner has none."""
    instead = _INSTEAD.get(name)
    return None if instead is None else f"aiotune.{name} does not exist: {instead}\n{_PAGE}"
