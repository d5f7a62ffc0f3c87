"""Tuner: a search as the user declares it, and what it found."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.from_thread

from aiotune.arguments import named_arguments
from aiotune.child_self import AbsentProject, OracleView, attributes_of, telling_of_writes
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.executors.main_module import refuse_import_of_main
from aiotune.folds import Folds, Sample
from aiotune.hypermodel import HyperModel, as_hypermodel, require_fit_takes
from aiotune.hyperparameters import HyperParameters
from aiotune.layout import Layout
from aiotune.lazy import first_lazy
from aiotune.objective import Objective
from aiotune.oracles.base import Oracle
from aiotune.printable import printable
from aiotune.project import Project
from aiotune.results import SearchResult, space_text
from aiotune.settings import Settings
from aiotune.simulation.subject import Subject
from aiotune.space import Space
from aiotune.trial import Trial
from aiotune.tuner_hooks import TunerHooks
from aiotune.tuner_knowledge import TunerKnowledge
from aiotune.tuner_models import TunerModels
from aiotune.tuner_options import at_least_one, below_directory, refuse_idle, strategy_factory
from aiotune.tuner_results import TunerResults

if TYPE_CHECKING:
    from aiotune.frameworks.keras import ModelOptions
    from aiotune.observers.progress import Verbose
    from aiotune.retraining import Models
    from aiotune.search import Search

__all__ = ["Tuner"]


class Tuner(TunerHooks, TunerKnowledge, TunerModels, TunerResults):
    """Searches with an oracle, in child processes, and keeps every fact in a project directory.

    oracle: proposes the trials. hypermodel: a function `build(hp) -> model` or a `HyperModel`; None if
    `run_trial` is overridden. max_model_size: trainable parameters above which a point is infeasible.
    optimizer, loss, metrics: replace what the model was compiled with. directory, project_name: where the
    files go; an existing project is continued. overwrite: delete what aiotune wrote there before.
    executions_per_trial: runs of each point, whose mean score counts. distribution_strategy: a function without
    arguments that returns a `tf.distribute` strategy, or a distribution of `keras.distribution`: it is called
    in each child, and the model is built, trained and loaded in its scope. logger, tuner_id: have no effect
    and are refused; they keep the order of KerasTuner's arguments.

    Further keywords are those of `aiotune.Settings`: max_concurrent_trials, gpus, resources, limits, ...
    """

    model_framework = "keras"

    def __init__(
        self,
        oracle: Oracle,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        max_model_size: int | None = None,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        distribution_strategy: Callable[[], Any] | None = None,
        directory: str | Path | None = None,
        project_name: str | None = None,
        logger: None = None,
        tuner_id: None = None,
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
        refuse_idle(logger=logger, tuner_id=tuner_id)
        self.max_model_size = max_model_size
        self.distribution_strategy = strategy_factory(distribution_strategy)
        self.optimizer = optimizer
        self.loss = loss
        self.metrics = metrics
        self.directory = str(directory or ".")
        self.project_name = below_directory(project_name or "untitled_project")
        self.executions_per_trial = at_least_one("executions_per_trial", executions_per_trial)
        self._project = Project(
            oracle,
            Layout(Path(self.directory).absolute(), self.project_name),
            Settings.of(settings, _CONSTRUCTOR_KEYWORDS),
        )
        self._folds: Folds | None = self._project.settings.folds
        self._bounds = oracle.bounds
        self._checkpoint_every = self._project.settings.checkpoint_every
        self._is_durable = self._project.settings.durability == "full"
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
        expect = self._project.expect  # fails in a child, before a coroutine is made
        # Made now and not at the first step: the children's world is the caller's as of this call.
        search = self._search(self._new_search(fit_args, fit_kwargs, display="auto"))
        expect(search)
        return search

    async def _search(self, search: Search) -> SearchResult:
        self._project.expect(None)
        async with search:
            return await search.result()

    def start(self, *fit_args: Any, **fit_kwargs: Any) -> Search:
        """Return the search as an async context manager, for programs that do other things beside it:

            async with tuner.start(x, y, epochs=5) as search:
                async for event in search.events():
                    ...
                result = await search.result()

        Leaving the block before the search has ended cancels it. Silent, unless `verbose` says otherwise.
        """
        return self._new_search(fit_args, fit_kwargs, display=0)

    def _new_search(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], display: Verbose
    ) -> Search:
        from aiotune.search import Search

        refuse_import_of_main()
        self._check_arguments(args, kwargs)
        return Search(self, self._project, args, kwargs, display=display)

    def to_simulate(self) -> Subject:
        """Return what `aiotune.simulate(tuner, ...)` runs: the oracle, and what bears on its search.

        FatalValueError for folds whose number only the data tell.
        """
        settings, folds = self._project.settings, self._count_folds_without_data()
        return Subject(
            self.oracle,
            repeats=self.executions_per_trial * folds,
            folds=folds,
            limits=settings.limits,
            pruner=settings.pruner,
            resources=settings.resources,
        )

    def _count_folds_without_data(self) -> int:
        return 1 if self._folds is None else self._folds.count(Sample())

    async def __aenter__(self) -> Self:
        """Keep the process that starts the runs for a whole block, so that its imports are done once:

            async with tuner:
                await tuner.search(x, y, ...)
                path = await tuner.retrain(tuner.get_best_hyperparameters()[0], x, y, ...)

        It begins to import at once, in the background: what the tuner's program refers to. Where the data
        alone need a framework (a DataLoader for a model on TensorFlow, say), name it with `preload=`. Without
        a block, that process ends with each call.
        """
        from aiotune.processes import warm_processes

        warm = warm_processes(self, self._project)
        await warm.__aenter__()
        self._project.warm.append(warm)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._project.warm.pop().__aexit__(exc_type, exc, traceback)

    async def discover(self, *fit_args: Any, **fit_kwargs: Any) -> Space:
        """Return the search space as the model's build declares it, without a trial.

        The model is built in a child process, on the processor; nothing is stored. A space that the project
        knows already is returned as it is. The arguments are those of a search to come; they are checked as it
        will check them.
        """
        self._project.check_awaited()
        if fit_args or fit_kwargs:
            self._check_arguments(fit_args, fit_kwargs)
        return await self._discover(fit_args, fit_kwargs)

    async def _discover(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = MappingProxyType({})
    ) -> Space:
        from aiotune.processes import discover_space

        space = (await anyio.to_thread.run_sync(self._project.peek)).space
        if len(space) or self.hypermodel is None:
            return space.grow(self.oracle.hyperparameters.space)
        return await discover_space(self, self._project, args, kwargs)

    def _check_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """FatalTypeError for keywords of the tuner, and for what a `run_trial` or `fit` does not take."""
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
        if self.trains_by_itself:
            made = {} if self._folds is None else {"validation_data": ()}
            require_fit_takes(self.hypermodel, args, {**kwargs, **made})
        where = first_lazy(named_arguments("search()", args, kwargs))
        if self.has_async_trials and where is not None:
            raise FatalTypeError(
                f"{where} is an aiotune.Lazy, which is made in a child process, but an `async def run_trial` "
                "runs here, in the event loop: make the data in run_trial, or pass it as it is"
            )

    # --- what a subclass may override ---

    def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
        """Perform one run of a trial; return its score, a dict of metrics, or what `model.fit` returned.

        Overridden as `def` it runs in a child process, as `async def` in the caller's event loop. `args` and
        `kwargs` are those of `search()`. For steps of your own: `trial.report(step, loss=...)` and
        `trial.should_stop`.
        """
        from aiotune.frameworks.keras import TrainingHooks, build_and_fit, distributed

        if self.hypermodel is None:
            raise FatalValueError(
                f"{type(self).__name__} has no hypermodel that Tuner.run_trial could train: pass hypermodel=, "
                "or do without super().run_trial()"
            )
        hooks, options = TrainingHooks.overridden(self, Tuner), self._model_options()
        args, kwargs = self._held_out(args, kwargs, trial)
        with distributed(options):
            return build_and_fit(self.hypermodel, trial, args, kwargs, options, hooks)

    def _held_out(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], trial: RunContext
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of `fit`; with folds, what the run's fold holds out is its validation data."""
        from aiotune.frameworks.keras_folds import has_own_validation, with_fold_held_out

        if self._folds is None:
            return args, kwargs
        if self._overrides_run_trial() and has_own_validation(kwargs):
            return args, kwargs  # it has split the data itself, and calls super().run_trial()
        return with_fold_held_out(self._folds, args, kwargs, trial)

    def load_model(self, trial: Trial) -> Any:
        """Return the trial's model with its best weights, built in this process."""
        from aiotune.frameworks.keras import distributed, load_model

        if self.hypermodel is None:
            raise FatalValueError(
                f"{type(self).__name__} has no hypermodel: override load_model to say how a trial's model is "
                "loaded from what your run_trial saved"
            )
        directory, options = self._checkpoint_dir(trial), self._model_options()
        with distributed(options):
            return load_model(self.hypermodel, trial.hyperparameters, directory, options)

    def save_model(self, trial_id: str, model: Any, step: int = 0) -> None:
        """Keep a model of an overridden `run_trial` as that of its run, in place of an earlier one.

        `step`: the epoch or step that it belongs to. `load_model` and `get_best_models` find it. Called within
        `run_trial`; that of this class does it by itself, for the best epoch.
        """
        from aiotune.frameworks.keras import save_model
        from aiotune.program import current_run

        save_model(model, current_run(trial_id).checkpoint_dir, step)

    def _checkpoint_dir(self, trial: Trial) -> Path:
        """Return where the trial's checkpoint is. FatalValueError if the tuner is to keep none."""
        directory = self._project.layout.repeat(trial.trial_id, self._best_repeat(trial))
        keep = self._project.settings.keep_checkpoints
        if keep in ("none", "promotable") and not directory.exists():
            raise FatalValueError(
                f'trial {trial.trial_id} has no checkpoint: keep_checkpoints="{keep}" lets those of trials '
                "that are over go. Train it with retrain(), or pass a number, say 1, before the search"
            )
        return directory

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

    def search_space_summary(self, extended: bool = False) -> None:
        """Print the search space; `extended` changes nothing, as in KerasTuner.

        Before the first search the model is built once in a child process to find it, which blocks for as long
        as the framework's import takes; `await tuner.discover()` does not.
        """
        from aiotune.processes import refuse_to_block

        self._project.check_awaited()
        if not len(self._project.peek().space) and self.hypermodel is not None:
            refuse_to_block("await tuner.discover()")
        for line in space_text(_run_in_thread(self._discover)):
            print(printable(line))

    # --- for programs that were written for KerasTuner ---

    def save(self) -> None:
        """Do nothing: every fact is stored when it happens."""

    def reload(self) -> None:
        """Read the project anew at the next question, for what another process has done in the meantime.

        No program needs it to continue a project. During a search of this process it does nothing.
        """
        self._project.reload()

    def get_state(self) -> dict[str, Any]:
        """Return nothing: the store has the whole state."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the store has the whole state."""

    # --- what travels to a child ---

    def for_child(self) -> Tuner:
        """Return a slim copy: the class, the user's attributes, and a view of the oracle."""
        slim = object.__new__(type(self))
        changed = {
            "directory": str(self._project.layout.directory),  # absolute, wherever a run changes to
            "_project": AbsentProject(),
            "_oracle": OracleView(self.oracle),
        }
        for name, value in {**attributes_of(self), **changed}.items():
            object.__setattr__(slim, name, value)  # a class may watch or refuse what is set
        return slim

    @contextmanager
    def serving(self, run: RunContext) -> Iterator[None]:
        """Be `self` for this run: in a child, tell of attributes written there; elsewhere nothing."""
        if not isinstance(self._oracle, OracleView):
            yield
            return
        self._oracle.serve(run)
        with telling_of_writes(self, run):
            yield

    def declare(
        self,
        run: RunContext,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Meet the names of the space in a child, without training, and check the arguments of `search()`."""
        from aiotune.frameworks.keras import discover, discover_leniently
        from aiotune.frameworks.keras_folds import check_folds

        assert self.hypermodel is not None
        if self.trains_by_itself:
            if self._folds is not None:
                check_folds(self._folds, args, kwargs, run)
            # There are no devices to distribute a model over.
            options = replace(self._model_options(), distribution=None)
            discover(self.hypermodel, run, options, args, kwargs)
        else:
            discover_leniently(self.hypermodel, run)

    @property
    def has_discovery(self) -> bool:
        """Whether there are names that can be met without training, in a child."""
        return self.hypermodel is not None and not self.has_async_trials

    @property
    def trains_by_itself(self) -> bool:
        """Whether a run trains a Keras model: `run_trial` is not the user's own."""
        return self.hypermodel is not None and not self._overrides_run_trial()

    def count_folds(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """Return into how many folds the data of `search()` are split: 1 if they are not.

        FatalTypeError, FatalValueError for arguments that cannot be split. An overridden `run_trial` splits
        what it likes, and only the number counts.
        """
        from aiotune.frameworks.keras_folds import count_folds

        if self._folds is None:
            return 1
        if self._overrides_run_trial():
            return self._folds.count(Sample())
        return count_folds(self._folds, args, kwargs)

    @property
    def has_async_trials(self) -> bool:
        return inspect.iscoroutinefunction(self.run_trial)

    def _overrides_run_trial(self) -> bool:
        return type(self).run_trial is not Tuner.run_trial

    def _models(self, call: str, kwargs: Mapping[str, Any]) -> Models:
        """Return what makes the models. FatalError for a call that cannot work, whatever the framework says."""
        from aiotune.retraining import Models

        if self.hypermodel is None:
            raise FatalValueError(
                f"{call}() builds the model with the hypermodel, and {type(self).__name__} has none: "
                "pass hypermodel=, or train in a function of your own"
            )
        misplaced = sorted({*_CONSTRUCTOR_KEYWORDS, *Settings.names()} & set(kwargs))
        if misplaced:
            raise FatalTypeError(
                f"{call}() passes its arguments to the model; {', '.join(misplaced)} must be given to "
                f"{type(self).__name__}(...)"
            )
        if call == "evaluate" and "return_dict" in kwargs:
            raise FatalTypeError("evaluate() always returns a dict: drop return_dict")
        return Models(self, self.hypermodel, self._model_options(), self._project)

    def _model_options(self) -> ModelOptions:
        from aiotune.frameworks.keras import ModelOptions

        return ModelOptions(
            self.objective,
            self.max_model_size,
            self.optimizer,
            self.loss,
            self.metrics,
            self.distribution_strategy,
            self._bounds,
            self._checkpoint_every,
            self._is_durable,
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


def _run_in_thread(function: Callable[[], Coroutine[Any, Any, Space]]) -> Space:
    """Run a coroutine function to its end in an event loop of its own, wherever the caller stands.

    Ctrl-C cancels it, and returns when what it had begun has ended.
    """
    with anyio.from_thread.start_blocking_portal() as portal:
        space: Space = portal.call(function)
        return space
