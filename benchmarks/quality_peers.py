"""Runs the peers on the tasks, and records what they find.

    python benchmarks/quality_peers.py optuna-gp [--seeds 10] [--trials 50] [--tasks NAME ...]

Each is used as its users do: a program that asks for names where it needs them, default settings, failed trials
told as failed. It runs in any environment that has the peer; `requirements-peers.txt` has the versions.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from quality_functions import CORNER
from quality_tasks import Task, measure, tasks
from quality_traces import Outcome, Recorded, load, save, trace_of

# One thread each: the processor time of a suggestion is compared, and more threads only make it longer. Read
# when a peer is imported.
if __name__ == "__main__":  # a module that imports this one keeps its environment
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

__all__ = ["PEERS", "OptunaNames", "Peer", "record"]

Runner = Callable[[Task, int, int], list[Outcome]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A contender whose results are recorded. `packages`: whose versions belong to them."""

    name: str
    run: Runner  # (task, seed, trials)
    packages: Sequence[str]
    seeds: int = 10
    trials: int = 50


def record(peer: Peer, chosen: Sequence[Task], seeds: int, trials: int) -> None:
    """Run the peer on each task and write its file after each of them."""
    for task in chosen:
        start = time.perf_counter()
        traces = [trace_of(peer.run(task, seed, trials)) for seed in range(seeds)]
        known = load(peer.name)
        versions = {name: version(name) for name in peer.packages}
        save(peer.name, Recorded(versions, {**known.traces, task.name: traces}))
        seconds = time.perf_counter() - start
        print(f"{peer.name} {task.name}: {seconds:.0f} s, {traces[0].at(trials)}", flush=True)


# --- random search: aiotune's own ---


def _random(task: Task, seed: int, trials: int) -> list[Outcome]:
    from quality_driver import SCORE, run

    from aiotune.oracles.random_search import RandomSearchOracle

    return run(
        lambda seed, trials: RandomSearchOracle(SCORE, trials, seed=seed), task, seed, trials
    )


# --- Optuna ---


def _optuna(sampler: str) -> Runner:
    def run(task: Task, seed: int, trials: int) -> list[Outcome]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", module="optuna")
        chosen = getattr(optuna.samplers, sampler)(seed=seed)
        study = optuna.create_study(sampler=chosen)
        return [_optuna_trial(study, task, seed, trial) for trial in range(trials)]

    return run


def _optuna_trial(study: Any, task: Task, seed: int, number: int) -> Outcome:
    from optuna.trial import TrialState

    start = time.process_time()
    trial = study.ask()
    measured = measure(task, OptunaNames(trial), seed, number)  # the program takes no time itself
    seconds = time.process_time() - start
    if measured.failure is not None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, measured.observed)
    return Outcome(measured, seconds)


class OptunaNames:
    """Asks an Optuna trial for values under the names that tasks use."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self._is_active = True

    def Float(  # noqa: N802
        self, name: str, low: float, high: float, step: Any = None, sampling: str = "linear"
    ) -> Any:
        if not self._is_active:
            return None
        return self._trial.suggest_float(name, low, high, step=step, log=sampling == "log")

    def Int(  # noqa: N802
        self, name: str, low: int, high: int, step: Any = None, sampling: str = "linear"
    ) -> Any:
        if not self._is_active:
            return None
        return self._trial.suggest_int(name, low, high, step=step or 1, log=sampling == "log")

    def Choice(self, name: str, values: Sequence[Any], ordered: Any = None) -> Any:  # noqa: N802
        return self._trial.suggest_categorical(name, values) if self._is_active else None

    def Boolean(self, name: str) -> Any:  # noqa: N802
        return self.Choice(name, [False, True])

    @contextmanager
    def conditional_scope(self, parent_name: str, parent_values: Any) -> Iterator[None]:
        before = self._is_active
        self._is_active = before and self._trial.params.get(parent_name) in parent_values
        try:
            yield
        finally:
            self._is_active = before


# --- KerasTuner ---


def _keras_tuner(task: Task, seed: int, trials: int) -> list[Outcome]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras_tuner

    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("score", "min"),
        max_trials=trials,
        seed=seed + 1,  # a seed of 0 counts as none
        max_consecutive_failed_trials=trials,
    )
    with tempfile.TemporaryDirectory() as folder:
        oracle._set_project_dir(folder, "project")
        oracle.verbose = 0
        space = oracle.get_space()
        measure(task, space, seed, 0)
        oracle.update_space(space)
        return [_keras_tuner_trial(oracle, task, seed, trial) for trial in range(trials)]


def _keras_tuner_trial(oracle: Any, task: Task, seed: int, number: int) -> Outcome:
    from keras_tuner.engine import trial as trials

    start = time.process_time()
    trial = oracle.create_trial("tuner0")
    seconds = time.process_time() - start
    measured = measure(task, trial.hyperparameters, seed, number)
    if measured.failure is not None:
        trial.status = trials.TrialStatus.FAILED
    else:
        oracle.update_trial(trial.trial_id, {"score": measured.observed})
        trial.status = trials.TrialStatus.COMPLETED
    oracle.end_trial(trial)
    return Outcome(measured, seconds)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("random", _random, ("aiotune", "numpy"), seeds=30),
        Peer("optuna-gp", _optuna("GPSampler"), ("optuna", "torch", "scipy", "numpy")),
        Peer("optuna-tpe", _optuna("TPESampler"), ("optuna", "numpy")),
        Peer(
            "keras-tuner",
            _keras_tuner,
            ("keras-tuner", "scikit-learn", "numpy"),
            seeds=3,
            trials=30,
        ),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peers", nargs="+", choices=PEERS)
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="default: all, and the corner")
    parser.add_argument("--seeds", type=int, help="default: 10; keras-tuner: 3")
    parser.add_argument("--trials", type=int, help="default: 50; keras-tuner: 30")
    given = parser.parse_args()
    known = [*tasks(), CORNER]
    chosen = [task for task in known if given.tasks is None or task.name in given.tasks]
    for name in given.peers:
        peer = PEERS[name]
        record(peer, chosen, given.seeds or peer.seeds, given.trials or peer.trials)


if __name__ == "__main__":
    main()
