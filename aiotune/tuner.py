"""Tuner: a search as the user declares it, and what it found."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.hypermodel import HyperModel, as_hypermodel
from aiotune.hyperparameters import HyperParameters
from aiotune.layout import Layout
from aiotune.objective import Objective
from aiotune.oracles.base import Oracle
from aiotune.project import OracleView, Project
from aiotune.results import SearchResult, best_trials, results_text, space_text
from aiotune.settings import Settings
from aiotune.space import Space
from aiotune.trial import Trial

if TYPE_CHECKING:
    from aiotune.frameworks.keras import ModelOptions
    from aiotune.search import Search

__all__ = ["Tuner"]


class Tuner:
    """Searches with an oracle, in child processes, and keeps every fact in a project directory.

    oracle: proposes the trials. hypermodel: a function `build(hp) -> model` or a `HyperModel`; None if
    `run_trial` is overridden. max_model_size: trainable parameters above which a point is infeasible.
    optimizer, loss, metrics: replace what the model was compiled with. directory, project_name: where the
    files go; an existing project is continued. overwrite: delete what aiotune wrote there before.
    executions_per_trial: runs of each point, whose mean score counts.

    Further keywords are those of `aiotune.Settings`: max_concurrent_trials, gpus, resources, limits, ...
    """

    def __init__(
        self,
        oracle: Oracle,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        max_model_size: int | None = None,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        directory: str | Path | None = None,
        project_name: str | None = None,
        overwrite: bool = False,
        executions_per_trial: int = 1,
        **settings: Any,
    ) -> None:
        if not isinstance(oracle, Oracle):
            raise FatalTypeError(
                f"oracle must be an aiotune Oracle; it is a {type(oracle).__name__}"
            )
        self.hypermodel = as_hypermodel(hypermodel)
        if self.hypermodel is None and not self._overrides_run_trial():
            raise FatalValueError(
                "hypermodel is missing: pass a function that builds the model, or override run_trial"
            )
        self.max_model_size = max_model_size
        self.optimizer = optimizer
        self.loss = loss
        self.metrics = metrics
        self.directory = str(directory or ".")
        self.project_name = project_name or "untitled_project"
        self.executions_per_trial = _at_least_one("executions_per_trial", executions_per_trial)
        self._project = Project(
            oracle,
            Layout(Path(self.directory).absolute(), self.project_name),
            Settings.of(settings, _CONSTRUCTOR_KEYWORDS),
        )
        self._oracle: Oracle | OracleView = oracle
        if overwrite:
            self._project.overwrite()

    # --- searching ---

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> Coroutine[Any, Any, SearchResult]:
        """Run the search: `result = await tuner.search(x, y, epochs=5, validation_data=(xv, yv))`.

        The arguments go to `fit`, or to an overridden `run_trial`. verbose: 0 is silent, 1 or "auto" a live
        display where there is a terminal, 2 a line for each trial. A project that has trials already is
        continued. Cancelling it stops the children and keeps every fact.
        """
        self._check_arguments(fit_args, {"verbose": "auto"} | fit_kwargs)
        search = self._search(fit_args, fit_kwargs)
        self._project.expect(search)
        return search

    async def _search(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> SearchResult:
        self._project.expect(None)
        async with self.start(*args, **{"verbose": "auto"} | dict(kwargs)) as search:
            return await search.result()

    def start(self, *fit_args: Any, **fit_kwargs: Any) -> Search:
        """Return the search as an async context manager, for programs that do other things beside it:

            async with tuner.start(x, y, epochs=5) as search:
                async for event in search.events():
                    ...
                result = await search.result()

        Leaving the block before the search has ended cancels it. Silent, unless `verbose` says otherwise.
        """
        from aiotune.search import Search

        self._check_arguments(fit_args, fit_kwargs)
        return Search(self, self._project, fit_args, fit_kwargs)

    async def discover(self) -> Space:
        """Return the search space as the model's build declares it, without a trial.

        The model is built in a child process, on the processor; nothing is stored. A space that the project
        knows already is returned as it is.
        """
        from aiotune.search import discover_space

        space = (await anyio.to_thread.run_sync(self._project.history)).space
        if len(space) or self.hypermodel is None:
            return space.grow(self.oracle.hyperparameters.space)
        return await discover_space(self, self._project)

    def _check_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """FatalTypeError for keywords of the tuner, and for what an overridden `run_trial` does not take."""
        signature = inspect.signature(self.run_trial)
        is_open = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        own = {*_CONSTRUCTOR_KEYWORDS, *Settings.names()}
        if self._overrides_run_trial():
            own = set() if is_open else own - set(signature.parameters)
        receiver = f"{type(self).__name__}.run_trial" if self._overrides_run_trial() else "fit"
        misplaced = sorted(own & set(kwargs))
        if misplaced:
            raise FatalTypeError(
                f"search() passes its arguments to {receiver}; {', '.join(misplaced)} must be given to "
                f"{type(self).__name__}(...)"
            )
        if not is_open and "verbose" not in signature.parameters:
            kwargs = {name: value for name, value in kwargs.items() if name != "verbose"}
        try:
            signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise FatalTypeError(
                f"search() passes its arguments to {receiver}{signature}: {error}"
            ) from error

    # --- what a subclass may override ---

    def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
        """Perform one run of a trial; return its score, a dict of metrics, or what `model.fit` returned.

        Overridden as `def` it runs in a child process, as `async def` in the caller's event loop. `args` and
        `kwargs` are those of `search()`. For steps of your own: `trial.report(step, loss=...)` and
        `trial.should_stop`.
        """
        from aiotune.frameworks.keras import TrainingHooks, build_and_fit

        assert self.hypermodel is not None
        hooks = TrainingHooks.overridden(self, Tuner)
        return build_and_fit(self.hypermodel, trial, args, kwargs, self._model_options(), hooks)

    def on_search_begin(self) -> Any:
        """Called in the caller's process before the first trial. This and the next three may be `async def`."""

    def on_search_end(self) -> Any:
        """Called in the caller's process after the last trial, unless the search failed."""

    def on_trial_begin(self, trial: Trial) -> Any:
        """Called in the caller's process before the trial's first run."""

    def on_trial_end(self, trial: Trial) -> Any:
        """Called in the caller's process when the trial is over."""

    def pre_create_trial(self) -> Any:
        """Called in the caller's process before the oracle is asked."""

    def on_epoch_begin(self, trial: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
        """Called in the child before each epoch."""

    def on_epoch_end(self, trial: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
        """Called in the child after each epoch."""

    def on_batch_begin(self, trial: RunContext, model: Any, batch: int, logs: Any = None) -> None:
        """Called in the child before each training batch. Overriding it costs a Python call for each."""

    def on_batch_end(self, trial: RunContext, model: Any, batch: int, logs: Any = None) -> None:
        """Called in the child after each training batch. Overriding it costs a Python call for each."""

    def load_model(self, trial: Trial) -> Any:
        """Return the trial's model with its best weights, built in this process."""
        from aiotune.frameworks.keras import load_model

        if self.hypermodel is None:
            raise FatalValueError(
                f"{type(self).__name__} has no hypermodel: override load_model to say how a trial's model is "
                "loaded from what your run_trial saved"
            )
        repeat = self._best_repeat(trial)
        directory = self._project.layout.repeat(trial.trial_id, repeat)
        return load_model(self.hypermodel, trial.hyperparameters, directory, self._model_options())

    def _best_repeat(self, trial: Trial) -> int:
        """Return the repeat whose run has the best score."""
        objective = self.objective
        runs = [run for run in trial.runs if objective.has_value(run.metrics)]
        if not runs:
            return 0
        scores = [objective.get_value(run.metrics) for run in runs]
        return runs[objective.best(scores)].repeat

    # --- what was found ---

    @property
    def oracle(self) -> Oracle:
        return self._oracle  # type: ignore[return-value]  # a view, in a child

    @property
    def objective(self) -> Objective:
        return self._oracle.objective

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial of the project, in the order of asking; also during a search, and before one."""
        return tuple(self._project.history().trials.values())

    @property
    def project_dir(self) -> str:
        return str(Path(self.directory) / self.project_name)

    @property
    def remaining_trials(self) -> int | None:
        """How many trials `max_trials` leaves, or None without that limit."""
        most = self.oracle.max_trials
        return None if most is None else max(0, most - self._project.history().counted())

    def get_trial_dir(self, trial_id: str) -> str:
        """Return the trial's own directory."""
        return str(Layout(Path(self.directory), self.project_name).trial(trial_id))

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Return the best trials, best first. Trials without a score are never among them."""
        return best_trials(self.trials, self.objective, num_trials)

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[HyperParameters]:
        """Return the hyperparameters of the best trials, best first."""
        return [trial.hyperparameters for trial in self.get_best_trials(num_trials)]

    def get_best_models(self, num_models: int = 1) -> list[Any]:
        """Return the best trials' models with the weights of their best epoch, best first.

        This imports the framework and builds the models in this process: it may take seconds.
        """
        return [self.load_model(trial) for trial in self.get_best_trials(num_models)]

    def results_summary(self, num_trials: int = 10) -> None:
        """Print the best trials."""
        for line in results_text(self.trials, self.objective, self.project_dir, num_trials):
            print(line)

    def search_space_summary(self) -> None:
        """Print the search space. Before the first search the model is built once in a child process to
        find it, which blocks for as long as the framework's import takes; `await tuner.discover()` does not.
        """
        for line in space_text(_run_in_thread(self.discover)):
            print(line)

    # --- what travels to a child ---

    def for_child(self) -> Tuner:
        """Return a slim copy: the class, the user's attributes, and a view of the oracle."""
        slim = object.__new__(type(self))
        vars(slim).update({name: value for name, value in vars(self).items() if name != "_project"})
        slim._oracle = OracleView(self.oracle.objective, self.oracle.max_trials)
        return slim

    def declare(self, run: RunContext) -> None:
        """Meet the names of the space in a child, without training."""
        from aiotune.frameworks.keras import discover

        assert self.hypermodel is not None
        discover(self.hypermodel, run, self._model_options())

    @property
    def has_discovery(self) -> bool:
        """Whether the names can be met without training: `run_trial` is not the user's own."""
        return self.hypermodel is not None and not self._overrides_run_trial()

    @property
    def has_async_trials(self) -> bool:
        return inspect.iscoroutinefunction(self.run_trial)

    def _overrides_run_trial(self) -> bool:
        return type(self).run_trial is not Tuner.run_trial

    def _model_options(self) -> ModelOptions:
        from aiotune.frameworks.keras import ModelOptions

        return ModelOptions(
            self.objective, self.max_model_size, self.optimizer, self.loss, self.metrics
        )


_ORACLE_KEYWORDS = (
    "objective",
    "max_trials",
    "seed",
    "hyperparameters",
    "tune_new_entries",
    "allow_new_entries",
    "max_retries_per_trial",
    "max_consecutive_failed_trials",
)
_CONSTRUCTOR_KEYWORDS = (
    *list(inspect.signature(Tuner.__init__).parameters)[1:-1],
    *_ORACLE_KEYWORDS,
)


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise FatalValueError(f"{name}={value!r}: it must be a whole number, 1 or more")
    return value


def _run_in_thread(function: Callable[[], Coroutine[Any, Any, Space]]) -> Space:
    """Run a coroutine function to its end in an event loop of its own, wherever the caller stands."""
    outcome: list[Space | BaseException] = []

    def work() -> None:
        try:
            outcome.append(asyncio.run(function()))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, name="aiotune discover")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
