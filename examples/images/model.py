"""The model that both searches tune: a convolutional network, its layers made in a loop."""

import keras
from keras import layers


def build_model(hp):
    """Return a network whose every layer has hyperparameters of its own, and so has its optimizer."""
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 255)])
    for block in range(hp.Int("blocks", 1, 3)):
        filters = hp.Int(f"filters_{block}", 16, 64, step=16)
        kernel = hp.Choice(f"kernel_{block}", [3, 5])
        model.add(layers.Conv2D(filters, kernel, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(hp.Float("dropout_rate", 0.1, 0.5, step=0.1)))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(choose_optimizer(hp), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def choose_optimizer(hp):
    """Return an optimizer with the learning rate, and what else, that belongs to its kind."""
    kind = hp.Choice("optimizer", ["adam", "sgd"])
    with hp.conditional_scope("optimizer", ["adam"]):  # None for the other kind
        adam_rate = hp.Float("adam_rate", 1e-3, 1e-2, sampling="log")
    with hp.conditional_scope("optimizer", ["sgd"]):
        sgd_rate = hp.Float("sgd_rate", 1e-2, 1e-1, sampling="log")
        momentum = hp.Float("momentum", 0.5, 0.9, step=0.1)
    if kind == "adam":
        return keras.optimizers.Adam(adam_rate)
    return keras.optimizers.SGD(sgd_rate, momentum=momentum)
