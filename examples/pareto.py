"""Several objectives: forests that are accurate and small, each the best that its size allows.

The images of digits ship with scikit-learn. Which of the forests on the front suits is a choice for afterwards.
"""

import asyncio
import tempfile

from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split

import aiotune


class Forest(aiotune.BayesianOptimization):
    """Trains a forest in each trial, and returns both of the metrics."""

    def run_trial(self, trial, x, y):
        hp = trial.hyperparameters
        forest = ExtraTreesClassifier(
            n_estimators=hp.Int("trees", 1, 60, sampling="log"),
            max_depth=hp.Int("depth", 2, 14),
            min_samples_leaf=hp.Int("leaf", 1, 20, sampling="log"),
            max_features=hp.Float("features", 0.05, 1.0),
            random_state=0,
        )
        x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.3, random_state=0)
        forest.fit(x_train, y_train)
        nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
        return {"accuracy": forest.score(x_val, y_val), "nodes": nodes}


async def main():
    objective = aiotune.MultiObjective(
        [aiotune.Objective("accuracy", "max"), aiotune.Objective("nodes", "min")],
        reference=[0.5, 10_000],  # a forest that is worse, or larger, is of no use
    )
    with tempfile.TemporaryDirectory() as directory:
        tuner = Forest(objective=objective, max_trials=30, directory=directory, seed=0)
        result = await tuner.search(*load_digits(return_X_y=True))
    print(result)
    for trial in result.pareto_front:
        accuracy, nodes = trial.metrics["accuracy"], trial.metrics["nodes"]
        print(
            f"  {trial.trial_id}  accuracy {accuracy:.3f}  nodes {nodes:5.0f}  {dict(trial.values)}"
        )
    print(f"hypervolume {result.hypervolume():.0f}")


if __name__ == "__main__":
    asyncio.run(main())
