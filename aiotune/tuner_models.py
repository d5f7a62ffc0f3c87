"""Models outside of a search: trained anew, or measured, in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from aiotune.errors import FatalTypeError
from aiotune.hypermodel import HyperModel, require_fit_takes
from aiotune.hyperparameters import HyperParameters
from aiotune.project import Project
from aiotune.trial import Trial

if TYPE_CHECKING:
    from aiotune.retraining import Models

__all__ = ["TunerModels"]


class TunerModels:
    """The part of a tuner that trains and measures single models."""

    if TYPE_CHECKING:  # of the tuner
        hypermodel: HyperModel | None
        _project: Project

        def _checkpoint_dir(self, trial: Trial) -> Path: ...

        def _models(self, call: str, kwargs: Mapping[str, Any]) -> Models: ...

    async def retrain(
        self, hp: HyperParameters | Trial, /, *fit_args: Any, **fit_kwargs: Any
    ) -> Path:
        """Train the model for `hp`, values or a trial, in a child process; return the file it is saved in.

            hp = tuner.get_best_hyperparameters()[0]
            path = await tuner.retrain(hp, x_all, y_all, epochs=20)

        The arguments go to `fit`, as those of `search` do; an overridden `run_trial` has no part in it. The
        model is saved as it is at the end, in a directory of its own in the project. The same call again
        trains the same model, as far as the framework allows. It may run beside a search; cancelling it ends
        the child and leaves nothing.
        """
        from aiotune.retraining import point_of

        path: Path = await self.train_apart(self._project, point_of(hp), fit_args, fit_kwargs)
        return path

    async def train_apart(
        self,
        project: Project,
        hp: HyperParameters,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Do what `retrain` says. A tuner for another framework does it in its own way."""
        from aiotune.retraining import retrain

        models = self._models("retrain", kwargs)
        require_fit_takes(self.hypermodel, args, kwargs, "retrain()")
        return await retrain(models, hp, args, kwargs)

    async def evaluate(
        self, model: str | Path | Trial, /, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """Return a model's metrics by name, computed in a child process: `await tuner.evaluate(path, x, y)`.

        model: a path that `retrain` returned, or a trial, which means the best epoch of its best run. The other
        arguments go to `model.evaluate`. It may run beside a search.
        """
        from aiotune.retraining import evaluate, weights_at, weights_of

        models = self._models("evaluate", kwargs)
        match model:
            case Trial():
                find = partial(weights_of, model, self._checkpoint_dir(model))
            case str() | Path():
                find = partial(weights_at, Path(model))
            case _:
                raise FatalTypeError(
                    "evaluate() needs the path that retrain() returned, or a Trial, first; it is of type "
                    f"{type(model).__name__}"
                )
        return await evaluate(models, await anyio.to_thread.run_sync(find), args, kwargs)
