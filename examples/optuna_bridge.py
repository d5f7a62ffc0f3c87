"""A sampler of Optuna leads the search, and Optuna tells which hyperparameters mattered.

Needs `pip install 'aiotune[optuna,sklearn]'`. The data, 178 wines, ship with scikit-learn.
"""

import asyncio
import tempfile

import optuna
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import aiotune


def sampler(seed):
    """Return a sampler that knows which hyperparameters belong together."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=5)


class Wine(aiotune.Tuner):
    """Two kinds of model, each with hyperparameters of its own."""

    def run_trial(self, trial, x, y):
        hp = trial.hyperparameters
        if hp.Choice("model", ["linear", "svc"]) == "linear":
            model = LogisticRegression(C=hp.Float("C", 1e-4, 1e2, sampling="log"))
        else:
            gamma = hp.Float("gamma", 1e-5, 1e1, sampling="log")
            model = SVC(C=hp.Float("svc_C", 1e-2, 1e3, sampling="log"), gamma=gamma)
        pipeline = make_pipeline(StandardScaler(), model)
        return {"error": 1.0 - cross_val_score(pipeline, x, y, cv=3).mean()}


async def main():
    x, y = load_wine(return_X_y=True)
    with tempfile.TemporaryDirectory() as directory:
        tuner = Wine(
            aiotune.oracles.OptunaOracle(
                sampler, aiotune.Objective("error", "min"), max_trials=16, seed=0
            ),
            directory=directory,
            project_name="wine",
            preload=["sklearn.linear_model", "sklearn.svm"],  # imported once, for all trials
        )
        result = await tuner.search(x, y)
        print(result)

        storage = f"sqlite:///{directory}/optuna.db"  # optuna-dashboard can open it
        study = result.to_optuna("wine", storage=storage)
        print(f"best of {len(study.trials)} trials of the study: {study.best_params}")
        for name, importance in optuna.importance.get_param_importances(study).items():
            print(f"  {name}: {importance:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
