"""A forest of regression trees: a model of scores that knows how unsure it is.

Extremely randomised trees (Geurts et al. 2006), each grown on a bootstrap sample: like the random forest of
SMAC they split at random places between the trials. Mean and variance are those of Hutter et al. 2014,
"Algorithm runtime prediction", section 4.3.2: a mixture of what the leaves hold. No other oracle's module
imports scikit-learn.

Shapes: n trials, m points, c columns, t trees.
"""

from __future__ import annotations

import numpy as np

from aiotune.learning.gaussian_process import Array

__all__ = ["Forest", "load_trees"]

_COLUMNS_SHARE = 5 / 6  # of the columns are looked at for a split, as in SMAC
_LEAST_VARIANCE = 1e-6  # where targets have 1


def load_trees() -> None:
    """Import scikit-learn's trees: a second, too long for the first question. ImportError without it."""
    import sklearn
    import sklearn.tree  # noqa: F401


class Forest:
    """Trees over columns (n, c) and targets (n,) of mean 0 and variance 1."""

    def __init__(
        self, columns: Array, targets: Array, *, trees: int, chance: np.random.Generator
    ) -> None:
        import sklearn
        from sklearn.tree import ExtraTreeRegressor

        narrow = columns.astype(np.float32)  # as the trees want it
        sampled = chance.integers(len(columns), size=(trees, len(columns)))
        seeds = chance.integers(2**31, size=trees).tolist()
        # One by one: scikit-learn's own forest spends 1 ms on each tree before it grows that.
        with sklearn.config_context(skip_parameter_validation=True):
            grown = [
                ExtraTreeRegressor(max_features=_COLUMNS_SHARE, random_state=seed).fit(
                    narrow[rows], targets[rows], check_input=False
                )
                for seed, rows in zip(seeds, sampled, strict=True)
            ]
        self._trees = [each.tree_ for each in grown]

    def predict(self, columns: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation at points: (m, c) -> (m,), (m,)."""
        narrow = np.ascontiguousarray(columns, dtype=np.float32)
        leaves = [tree.apply(narrow) for tree in self._trees]
        pairs = list(zip(self._trees, leaves, strict=True))
        means = np.array([tree.value[leaf, 0, 0] for tree, leaf in pairs])
        within = np.array([tree.impurity[leaf] for tree, leaf in pairs])
        # The law of total variance: by how much trees differ, and what is left within their leaves.
        variance = means.var(axis=0) + within.mean(axis=0)
        return means.mean(axis=0), np.sqrt(np.maximum(variance, _LEAST_VARIANCE))
