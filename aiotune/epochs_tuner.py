"""What tuners share whose search decides how far each run trains."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from aiotune.hypermodel import HyperModel, require_fit_takes
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import Oracle
from aiotune.tuner import Tuner

if TYPE_CHECKING:
    from aiotune.results import SearchResult
    from aiotune.search import Search

__all__ = ["EpochsTuner"]

_LOG = logging.getLogger("aiotune")


class EpochsTuner(Tuner):
    """Sets `epochs` and `initial_epoch` of each `fit`.

    max_epochs: how far a trial is trained at most; None: as far as `search` says. epochs_from: the argument of
    the tuner that says so.
    """

    def __init__(
        self,
        oracle: Oracle,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        *,
        max_epochs: int | None,
        epochs_from: str = "max_epochs",
        **kwargs: Any,
    ) -> None:
        self._max_epochs = max_epochs
        self._epochs_from = epochs_from
        super().__init__(oracle, hypermodel, **kwargs)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> Coroutine[Any, Any, SearchResult]:
        """Run the search, as `Tuner.search` does. `epochs` has no effect, and a warning says so."""
        self._check_epochs(fit_args, fit_kwargs)
        return super().search(*fit_args, **fit_kwargs)

    def start(self, *fit_args: Any, **fit_kwargs: Any) -> Search:
        """Return the search as an async context manager, as `Tuner.start` does."""
        self._check_epochs(fit_args, fit_kwargs)
        return super().start(*fit_args, **fit_kwargs)

    def _check_epochs(self, fit_args: tuple[Any, ...], fit_kwargs: Mapping[str, Any]) -> None:
        """Say that the budgets win, unless a `run_trial` of the user's own asks for `epochs` by name.

        FatalTypeError for a `HyperModel.fit` that does not take them.
        """
        if self._max_epochs is None:
            return
        name = type(self).__name__
        if self.has_discovery:
            added = {"epochs": self._max_epochs, "initial_epoch": 0}
            adding = f"search() of {name}, which adds epochs and initial_epoch,"
            require_fit_takes(self.hypermodel, fit_args, {**fit_kwargs, **added}, adding)
        is_taken = "epochs" in inspect.signature(self.run_trial).parameters
        if "epochs" in fit_kwargs and not is_taken:
            _LOG.warning(
                "epochs=%s has no effect: %s sets the epochs of each run, up to %s=%s, which is given to the "
                "tuner. Drop it from search()",
                fit_kwargs["epochs"],
                name,
                self._epochs_from,
                self._max_epochs,
            )
