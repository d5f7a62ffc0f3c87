"""The training step on TensorFlow, traced once.

Keras leaves it to the first trace to create the variables of metrics and optimizer there, and TensorFlow then
traces a second time, for such a trace may not be used again. What is created before costs one trace only, which
for a small model is half of the time until its first batch.
"""

from __future__ import annotations

from typing import Any

from aiotune.frameworks.keras_build import require_keras

__all__ = ["build_before_tracing"]

# A model that has its own may train in a way that calling it on one batch does not show.
_STEPS = ("fit", "train_step", "compute_loss", "compute_metrics", "_symbolic_build")


def build_before_tracing(model: Any, data: Any) -> None:
    """Create what the training of a built model on a dataset would create, if no step of it is the model's own.

    Keras does so itself on JAX. No batch is computed, and no random state moves.
    """
    keras = require_keras()
    element = getattr(data, "element_spec", None)
    if element is None or not model.built or keras.backend.backend() != "tensorflow":
        return
    kind = type(model)
    if any(getattr(kind, step, None) is not getattr(keras.Model, step, step) for step in _STEPS):
        return  # or Keras has renamed the last one, which is private
    try:
        model._symbolic_build(data_batch=element)
    except Exception:
        return  # training shows what is wrong, or works all the same
