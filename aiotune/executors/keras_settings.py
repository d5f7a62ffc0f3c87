"""Keras's global settings: taken from the caller, where Keras is loaded, and made to hold in a run.

Keras is never imported here. It keeps some settings for each thread: the caller's are those of the thread that
calls.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

__all__ = ["KerasSettings", "SessionSettings", "backend_by"]

_LOG = logging.getLogger("aiotune")


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """The settings that `keras.utils.clear_session` drops, apart from the dtype policy."""

    is_interactive: bool = True
    filters_tracebacks: bool = True
    uses_flash_attention: bool = True

    @classmethod
    def current(cls, keras: Any) -> Self:
        config = keras.config
        return cls(
            is_interactive=bool(config.is_interactive_logging_enabled()),
            filters_tracebacks=bool(config.is_traceback_filtering_enabled()),
            uses_flash_attention=config.is_flash_attention_enabled() is not False,
        )

    def apply(self, keras: Any) -> None:
        config = keras.config
        if self.is_interactive:
            config.enable_interactive_logging()
        else:
            config.disable_interactive_logging()
        if self.filters_tracebacks:
            config.enable_traceback_filtering()
        else:
            config.disable_traceback_filtering()
        if not self.uses_flash_attention:
            config.disable_flash_attention()


@dataclass(frozen=True, slots=True)
class KerasSettings:
    """Keras's global settings as plain values that JSON holds. `backend` is settled when Keras is imported."""

    backend: str
    floatx: str
    epsilon: float
    image_data_format: str
    dtype_policy: Mapping[str, Any] | None  # module, class_name, config; None: none was set
    limits: Mapping[str, int | None] = field(default_factory=dict)  # of each `fit`
    session: SessionSettings = SessionSettings()

    @classmethod
    def current(cls) -> Self | None:
        """Return the settings of this process and thread; None if Keras is not loaded here."""
        keras: Any = sys.modules.get("keras")
        config: Any = getattr(keras, "config", None)
        if not hasattr(config, "dtype_policy"):  # Keras 2, or in the midst of its import
            return None
        return cls(
            backend=config.backend(),
            floatx=config.floatx(),
            epsilon=float(config.epsilon()),
            image_data_format=config.image_data_format(),
            dtype_policy=_described(_set_policy(keras)),
            limits={name: getattr(config, name)() for name in _LIMITS if hasattr(config, name)},
            session=SessionSettings.current(keras),
        )

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> Self:
        """Return the settings that `dataclasses.asdict` took apart."""
        return cls(**{**frame, "session": SessionSettings(**frame["session"])})

    def to_frame(self) -> dict[str, Any]:
        return asdict(self)

    def apply(self, keras: Any) -> None:
        """Make them hold in this process, where Keras is loaded, for the calling thread."""
        config = keras.config
        config.set_floatx(self.floatx)
        config.set_epsilon(self.epsilon)
        config.set_image_data_format(self.image_data_format)
        for name, value in self.limits.items():
            getattr(config, f"set_{name}")(value)
        if self.dtype_policy is not None:
            config.set_dtype_policy(_policy(self.dtype_policy))
        self.session.apply(keras)


def backend_by(environment: Mapping[str, str]) -> str:
    """Return the backend that Keras chooses with these variables: from them, its settings file, its default."""
    backend = environment.get("KERAS_BACKEND")
    if backend is None:
        home = environment.get("KERAS_HOME") or Path.home() / ".keras"
        try:
            backend = json.loads(Path(home, "keras.json").read_text())["backend"]
        except (OSError, ValueError, KeyError, TypeError):
            backend = None
    return backend if backend in _BACKENDS else "tensorflow"


_BACKENDS = ("tensorflow", "jax", "torch")
_LIMITS = ("max_epochs", "max_steps_per_epoch")


def _set_policy(keras: Any) -> Any:
    """Return the dtype policy if one was set, else None.

    Keras's own function sets one if there is none: a later `set_floatx` of the caller would do nothing.
    """
    state: Any = sys.modules.get("keras.src.backend.common.global_state")
    if hasattr(state, "get_global_attribute"):
        return state.get_global_attribute("dtype_policy")
    return keras.config.dtype_policy()


def _described(policy: Any) -> dict[str, Any] | None:
    """Return the policy as plain values; None, with a warning, for one that no other process can make."""
    if policy is None:
        return None
    kind = type(policy)
    described = {
        "module": kind.__module__,
        "class_name": kind.__qualname__,
        "config": policy.get_config(),
    }
    try:
        json.dumps(described)
    except (TypeError, ValueError):
        is_plain = False
    else:
        is_plain = kind.__module__ != "__main__" and "<locals>" not in kind.__qualname__
    if is_plain:
        return described
    _LOG.warning(
        "the dtype policy %r is not passed on to trials: its class %s belongs to this process alone. Set it "
        "there with setup=, or define the class in a module of its own",
        policy.name,
        kind.__qualname__,
    )
    return None


def _policy(described: Mapping[str, Any]) -> Any:
    """Make the policy anew."""
    kind: Any = importlib.import_module(described["module"])
    for name in described["class_name"].split("."):
        kind = getattr(kind, name)
    return kind.from_config(described["config"])
