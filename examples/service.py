"""A search beside other work: follow its events, ask for its status, stop it, and go on.

`async with tuner.start(...)` leaves the event loop free: here a counter stands for the service's own work.
"""

import asyncio
import tempfile

import aiotune
from aiotune.events import Reported, TrialEnded


class Parabola(aiotune.RandomSearch):
    """Finds the lowest point of a curve. The trials run in the loop, for each of them mostly waits."""

    async def run_trial(self, trial):
        x = trial.hyperparameters.Float("x", -1.0, 1.0)
        for step in range(3):
            await asyncio.sleep(0.01)
            trial.report(step, loss=(x - 0.5) ** 2 + 0.1 / (step + 1))


async def serve(served):
    """Do the service's own work."""
    while True:
        served.append("a request")
        await asyncio.sleep(0.005)


async def main():
    served = []
    work = asyncio.create_task(serve(served))
    with tempfile.TemporaryDirectory() as directory:
        tuner = Parabola(
            objective=aiotune.Objective("loss", "min"),
            max_trials=1000,
            max_concurrent_trials=4,
            directory=directory,
            seed=0,
        )
        async with tuner.start() as search:
            async for event in search.events():
                match event:
                    case Reported(trial_id=trial_id, step=2, metrics=metrics):
                        print(f"trial {trial_id}: {dict(metrics)}")
                    case TrialEnded(trial_id=trial_id, status=status, score=score):
                        print(f"trial {trial_id} is {status}, score {score}")
                        if score is not None and score < 0.04:
                            break  # good enough
            print("running:", search.status().running)
            search.request_stop()
            result = await search.result()
    work.cancel()
    print(result)
    print("the service answered meanwhile:", bool(served))


if __name__ == "__main__":
    asyncio.run(main())
