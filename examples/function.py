"""Tune any Python function: override `run_trial`, and return a number or a dict of metrics.

As `def` it runs in a process of its own for each trial; as `async def` in the caller's event loop, which suits
trials that wait for something else (a service, a job in a queue).
"""

import asyncio
import math
import tempfile

import aiotune


class Annealing(aiotune.RandomSearch):
    """The schedule of a small simulated annealing. Each trial computes, so it has a process of its own."""

    def run_trial(self, trial, steps):
        hp = trial.hyperparameters
        cooling = hp.Float("cooling", 0.5, 0.999)
        start = hp.Float("start", 0.1, 10.0, sampling="log")
        rough, temperature = 1.0, start
        for step in range(steps):
            rough *= 0.9 + 0.1 * math.tanh(temperature)
            temperature *= cooling
            trial.report(step, energy=rough + temperature)
            if trial.should_stop:
                break
        return rough + temperature


class Request(aiotune.RandomSearch):
    """The settings of a service that is asked over a network. Each trial waits, so the loop will do."""

    async def run_trial(self, trial):
        hp = trial.hyperparameters
        batch = hp.Int("batch", 1, 64)
        is_compressed = hp.Boolean("compress")
        await asyncio.sleep(0.01)  # the request
        return {"seconds": 1 / batch + 0.01 * batch * (0.5 if is_compressed else 1.0)}


async def main():
    with tempfile.TemporaryDirectory() as directory:
        annealing = Annealing(
            objective=aiotune.Objective("energy", "min"),
            max_trials=6,
            directory=directory,
            project_name="annealing",
            seed=0,
        )
        print(await annealing.search(steps=5))

        request = Request(
            objective=aiotune.Objective("seconds", "min"),
            max_trials=20,
            max_concurrent_trials=8,
            directory=directory,
            project_name="request",
            seed=0,
        )
        print(await request.search())
        print(request.get_best_hyperparameters()[0].values)


if __name__ == "__main__":
    asyncio.run(main())
