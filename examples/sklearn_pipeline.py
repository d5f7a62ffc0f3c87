"""Tune a scikit-learn pipeline by cross-validation: each fold is a run of its own, side by side.

Which model follows the scaler is searched as well, and each has hyperparameters of its own. The data, 569
biopsies, ship with scikit-learn.
"""

import asyncio
import tempfile

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import aiotune


def build(hp):
    """Return a scaler with one of three models behind it."""
    match hp.Choice("model", ["linear", "svc", "boosting"]):
        case "linear":
            model = LogisticRegression(C=hp.Float("linear_C", 1e-3, 1e2, sampling="log"))
        case "svc":
            gamma = hp.Float("gamma", 1e-4, 1e-1, sampling="log")
            model = SVC(C=hp.Float("svc_C", 1e-1, 1e2, sampling="log"), gamma=gamma)
        case _:
            rate = hp.Float("learning_rate", 0.02, 0.3, sampling="log")
            model = HistGradientBoostingClassifier(learning_rate=rate, max_iter=50)
    return make_pipeline(StandardScaler(), model)


async def main():
    X, y = load_breast_cancer(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
    with tempfile.TemporaryDirectory() as directory:
        tuner = aiotune.SklearnTuner(
            aiotune.oracles.RandomSearchOracle(
                objective=aiotune.Objective("roc_auc", "max"), max_trials=8, seed=3
            ),
            build,
            scoring=["roc_auc", "accuracy"],
            cv=StratifiedKFold(5, shuffle=True, random_state=0),
            directory=directory,
        )
        async with (
            tuner
        ):  # the search and the refit share one process that has imported scikit-learn
            result = await tuner.search(X, y)
            print(f"\n{result}")
            for trial in result.best_trials(3):
                folds = " ".join(f"{score:.4f}" for score in trial.scores)
                print(f"  {trial.trial_id}  {folds}  {dict(trial.values)}")
            model = await tuner.retrain(result.best_trial, X, y)
    print(
        f"\nfitted on all {len(X)} rows: accuracy {model.score(X_test, y_test):.3f} on {len(X_test)} others"
    )


if __name__ == "__main__":
    asyncio.run(main())
