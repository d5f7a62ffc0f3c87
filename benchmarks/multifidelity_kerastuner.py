"""One sweep of KerasTuner's Hyperband, as its users run it: one process. Run in an environment that has it.

python multifidelity_kerastuner.py DIRECTORY MAX_EPOCHS SEED
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import keras_tuner
import tensorflow
from multifidelity_task import FACTOR, OBJECTIVE, StampedBuild, split, stamp, stamping_callbacks


def main() -> None:
    directory, max_epochs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    stamps = directory / "stamps"
    stamp(
        stamps,
        "imported",
        versions={each.__name__: each.__version__ for each in (keras_tuner, keras, tensorflow)},
    )
    train, held_out = split(seed)
    tuner = keras_tuner.Hyperband(
        StampedBuild(stamps),
        OBJECTIVE,
        max_epochs=max_epochs,
        factor=FACTOR,
        seed=seed + 1,  # it takes 0 for none
        directory=directory,
        project_name="sweep",
    )
    stamp(stamps, "search")
    tuner.search(*train, validation_data=held_out, verbose=0, callbacks=stamping_callbacks(stamps))
    (best,) = tuner.oracle.get_best_trials(1)
    stamp(stamps, "done", best=best.score, trials=len(tuner.oracle.trials))


if __name__ == "__main__":
    main()
