"""Population based training: values that change while a model trains, and a training along what was found.

The model is a point that runs downhill in a narrow valley with noisy slopes: large steps are good at first,
small ones later. No single learning rate is as good as a schedule.
"""

import asyncio
import json
import random
import tempfile

import aiotune


async def descend(self, trial):
    rate = trial.hyperparameters.Float("rate", 0.001, 0.2, sampling="log")
    state = trial.checkpoint_dir / "state.json"  # that of the parent, if the trial goes on from one
    x, y = json.loads(state.read_text()) if trial.is_continued else (5.0, 5.0)
    for epoch in range(trial.budget.initial_epoch, trial.budget.epochs):
        chance = random.Random(trial.seed + epoch)  # the same, wherever a run begins
        heights = []
        for _ in range(30):
            x -= rate * (x + chance.gauss(0, 1))
            y -= rate * (9 * y + chance.gauss(0, 1))
            heights.append(x * x + 9 * y * y)
        trial.report(epoch, height=sum(heights) / len(heights))
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text(json.dumps([x, y]))


class Population(aiotune.PopulationBasedTraining):
    run_trial = descend


class Replay(aiotune.Replay):
    run_trial = descend


async def main():
    height = aiotune.Objective("height", "min")
    with tempfile.TemporaryDirectory() as directory:
        tuner = Population(
            objective=height,
            population_size=12,
            max_epochs=40,
            interval=4,
            seed=0,
            max_concurrent_trials=6,
            directory=directory,
        )
        print(await tuner.search(verbose=0))
        schedule = tuner.best_schedule()
        print(schedule)

        replay = Replay(None, schedule, height, directory=directory, project_name="replay")
        result = await replay.search(verbose=0)
        print(f"replayed: {result.best_score:.2g}")


if __name__ == "__main__":
    asyncio.run(main())
