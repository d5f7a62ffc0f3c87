"""A program as people write them, run as a script and as a module: its trials use all that is its own.

Its setup, `pickle` and `multiprocessing` meet the classes and globals of `__main__`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import aiotune

SCALE = 1
CONFIG = {"offset": 0}


def set_up() -> None:
    global SCALE
    SCALE = 3
    CONFIG["offset"] = 4
    os.environ["FROM_SETUP"] = "5"
    sys.path.append("/from/setup")


class Item:
    def __init__(self, number: int) -> None:
        self.number = number


def scaled(item: Item) -> int:
    return item.number * SCALE


def increased(number: int) -> int:
    return number + 1


class Own(aiotune.RandomSearch):
    def run_trial(self, trial: Any, item: Item, function: Any) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            forked = sum(pool.map(scaled, [Item(1), Item(2)]))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            spawned = sum(pool.map(scaled, [Item(1), Item(2)]))
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            pooled = executor.submit(scaled, Item(3)).result()
        return {
            "loss": 0.0,
            "scale": SCALE,
            "offset": CONFIG["offset"],
            "environment": float(os.environ["FROM_SETUP"]),
            "path": float(sys.path[-1] == "/from/setup"),
            "item": pickle.loads(pickle.dumps(item)).number,
            "function": pickle.loads(pickle.dumps(function))(1),
            "forked": forked,
            "spawned": spawned,
            "pooled": pooled,
            "argument": float(sys.argv[2]),
            "is_main": float(sys.modules["__main__"].Item is Item),
            "umask": float(os.umask(0)),
            "hour": float(time.localtime(0).tm_hour),
        }


async def main() -> None:
    directory = Path(sys.argv[1])
    os.umask(0o27)
    os.environ["TZ"] = "UTC-5"
    tuner = Own(
        objective="loss",
        max_trials=1,
        directory=directory,
        gpus=0,
        max_concurrent_trials=1,
        setup=set_up,
    )
    result = await tuner.search(Item(7), increased, verbose=0)
    print(dict(result.trials[0].metrics))
    print(SCALE, CONFIG, sys.path[-1] == "/from/setup")


if __name__ == "__main__":
    asyncio.run(main())
