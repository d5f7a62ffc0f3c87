"""Left out: an import says what to write instead of `keras_tuner.src`."""

from aiotune.absent import explanation

raise ImportError(explanation("src"), name="aiotune.src")
