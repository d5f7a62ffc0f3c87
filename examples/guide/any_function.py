"""Tune what is no Keras model: override `run_trial`, and ask for hyperparameters where you need them.

Here it is a forest of scikit-learn. Each trial has a process, and cores, of its own. See also `../function.py`.
"""

import asyncio

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

import aiotune


class Forests(aiotune.RandomSearch):
    def run_trial(self, trial, x, y):
        hp = trial.hyperparameters
        forest = RandomForestClassifier(
            n_estimators=hp.Int("trees", 10, 80, step=10),
            max_depth=hp.Int("max_depth", 2, 16, sampling="log"),
            max_features=hp.Choice("max_features", ["sqrt", "log2"]),
            random_state=0,
        )
        scores = cross_val_score(forest, x, y, cv=3)
        return {"accuracy": scores.mean(), "spread": scores.max() - scores.min()}


async def main():
    x, y = load_digits(return_X_y=True)
    tuner = Forests(
        objective=aiotune.Objective("accuracy", "max"),
        max_trials=8,
        overwrite=True,
        seed=0,
        directory="results",
        project_name="forests",
    )
    result = await tuner.search(x, y)
    print(result)
    print(result.best_hyperparameters.values)

    best = tuner.get_best_hyperparameters()[0]
    forest = RandomForestClassifier(
        n_estimators=best.get("trees"),
        max_depth=best.get("max_depth"),
        max_features=best.get("max_features"),
        random_state=0,
    )
    print(f"The best forest, on all data, has {len(forest.fit(x, y).estimators_)} trees")


if __name__ == "__main__":
    asyncio.run(main())
