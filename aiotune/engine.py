"""Left out: an import says what to write instead of `keras_tuner.engine`."""

from aiotune.absent import explanation

raise ImportError(explanation("engine"), name="aiotune.engine")
