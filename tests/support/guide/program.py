"""The ways in which people write programs for KerasTuner: a script, and the cells of a notebook.

Its last line is JSON: what each of the searches found.
"""

# %%
import asyncio
import json
import sys

import keras
import numpy as np
import tensorflow as tf
from blocks import Scale
from keras import layers, ops
from tensorflow import keras as tf_keras
from tensorflow.keras import losses

import aiotune

CLASSES = 2


# %% Classes of one's own
class Hits(keras.metrics.Metric):
    """The share of right answers."""

    def __init__(self, name="hits", **kwargs):
        super().__init__(name=name, **kwargs)
        self.right = self.add_weight(name="right", initializer="zeros")
        self.all = self.add_weight(name="all", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        is_right = ops.equal(ops.argmax(y_pred, axis=-1), ops.reshape(y_true, (-1,)))
        self.right.assign_add(ops.sum(ops.cast(is_right, self.dtype)))
        self.all.assign_add(ops.cast(ops.size(y_true), self.dtype))

    def result(self):
        return self.right / self.all


class Cut(layers.Layer):
    """Leaves only the first features."""

    def __init__(self, features, **kwargs):
        super().__init__(**kwargs)
        self.features = features

    def call(self, inputs):
        return inputs[:, : self.features]


class Net(keras.Model):
    def __init__(self, units, features):
        super().__init__()
        self.blocks = [Cut(features), Scale(0.5), layers.Dense(units, activation=tf.nn.relu)]
        self.head = layers.Dense(CLASSES, activation="softmax")

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(inputs)


def compiled(model, rate=0.01):
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy", Hits()]
    )
    return model


# %% A function that builds the model; it is called here first, to see that it works
def build_model(hp):
    model = Net(hp.Int("units", 4, 16, step=4), hp.Int("features", 3, 6))
    return compiled(model, hp.Float("rate", 1e-3, 1e-1, sampling="log"))


first = build_model(aiotune.HyperParameters())
first(np.zeros((1, 6), "float32"))
print(first.count_params(), "parameters")


# %% Keras code that knows of no hyperparameters
def create_model(units, activation, rate):
    layer = layers.Dense(units, activation=activation)
    model = keras.Sequential(
        [keras.Input((6,)), layer, layers.Dense(CLASSES, activation="softmax")]
    )
    return compiled(model, rate)


def build_separately(hp):
    return create_model(
        units=hp.Int("units", 4, 16, step=4),
        activation=hp.Choice("activation", ["relu", "tanh"]),
        rate=hp.Choice("rate", [0.1, 0.01]),
    )


# %% Tuned training, tuned preprocessing; a number or a dict
class Tuned(aiotune.HyperModel):
    def build(self, hp):
        features = hp.Int("features", 3, 6)
        head = tf.keras.layers.Dense(CLASSES, activation="softmax")
        model = tf_keras.Sequential([tf_keras.Input((features,)), head])
        return compiled(model)

    def fit(self, hp, model, x, y, validation_data, **kwargs):
        x_val, y_val = validation_data
        history = model.fit(
            x[:, : hp.get("features")],
            y,
            validation_data=(x_val[:, : hp.get("features")], y_val),
            batch_size=hp.Choice("batch_size", [16, 32]),
            epochs=hp.Int("epochs", 1, 3),
            **kwargs,
        )
        return min(history.history["val_loss"])


class TunedDict(Tuned):
    def fit(self, hp, model, x, y, validation_data, **kwargs):
        best = super().fit(hp, model, x, y, validation_data, **kwargs)
        return {"score": best, "epochs": hp.get("epochs")}


# %% A training loop of one's own: in a HyperModel, and in a tuner
def step_function(model, optimizer, loss):
    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    return step


class Loop(aiotune.HyperModel):
    def build(self, hp):
        return build_separately(hp)

    def fit(self, hp, model, x, y, validation_data, callbacks=None, **kwargs):
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(hp.Choice("batch", [16, 32]))
        step = step_function(model, model.optimizer, losses.SparseCategoricalCrossentropy())
        for callback in callbacks or []:
            callback.set_model(model)
        for epoch in range(2):
            mean = float(np.mean([float(step(*batch)) for batch in batches]))
            for callback in callbacks or []:
                callback.on_epoch_end(epoch, logs={"my_loss": mean})
        return mean


class LoopTuner(aiotune.RandomSearch):
    def run_trial(self, trial, x, y):
        hp = trial.hyperparameters
        model = self.hypermodel.build(hp)
        optimizer = keras.optimizers.Adam(hp.Float("own_rate", 1e-3, 1e-1, sampling="log"))
        step = step_function(model, optimizer, losses.SparseCategoricalCrossentropy())
        for epoch in range(2):
            trial.report(epoch, my_loss=float(step(x, y)))


# %% Any other function
class Parabola(aiotune.RandomSearch):
    def run_trial(self, trial):
        return (trial.hyperparameters.Float("x", -1.0, 1.0) - 0.5) ** 2


# %% The searches
def data():
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype("int32")


def tuner(name, kind=aiotune.RandomSearch, **options):
    defaults = {"max_trials": 1, "seed": 0, "directory": "results", "gpus": 0}
    return kind(project_name=name, **defaults | options)


async def search(a_tuner, *args, **kwargs):
    result = await a_tuner.search(*args, **kwargs)
    trial = result.best_trial
    steps = [sorted(each.metrics) for each in trial.runs[0].observations]
    return {"score": trial.score, "values": dict(trial.values), "steps": steps}


async def main():
    x, y = data()
    given = {"validation_data": (x, y), "verbose": 0}
    fit = given | {"epochs": 2}
    hits = aiotune.Objective("val_hits", direction="max")
    my_loss = aiotune.Objective("my_loss", "min")
    best = aiotune.Objective("score", "min")
    build = tuner("build", hypermodel=build_model, objective=hits)
    several = ["val_loss", hits]
    names = ("build", "separate", "tuned", "dict", "loop", "tuner", "function")
    found = await asyncio.gather(
        search(build, x, y, **fit),
        search(tuner("separate", hypermodel=build_separately, objective=several), x, y, **fit),
        search(tuner("tuned", hypermodel=Tuned()), x, y, **given),
        search(tuner("dict", hypermodel=TunedDict(), objective=best), x, y, **given),
        search(tuner("loop", hypermodel=Loop(), objective=my_loss), x, y, **given),
        search(
            tuner("tuner", LoopTuner, hypermodel=build_separately, objective=my_loss),
            x,
            y,
            verbose=0,
        ),
        search(tuner("function", Parabola, max_trials=3), verbose=0),
    )
    model = build.get_best_models()[0]
    again = model.evaluate(x, y, verbose=0, return_dict=True)["hits"]
    rebuilt = build.hypermodel.build(build.get_best_hyperparameters()[0])
    told = dict(zip(names, found, strict=True))
    told["build"] |= {"again": again, "rebuilt": type(rebuilt) is Net}
    print(json.dumps(told))
    sys.stdout.flush()
    return told


# %%
if __name__ == "__main__":
    asyncio.run(main())
