from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import cloudpickle
import pytest

from aiotune.errors import FatalTypeError
from aiotune.hypermodel import DefaultHyperModel, HyperModel, as_hypermodel, defines_fit
from aiotune.hyperparameters import HyperParameters


class Plain(HyperModel):
    def build(self, hp: HyperParameters) -> Any:
        return [hp.Int("units", 1, 9, default=4)]


class Bare(HyperModel):
    """Does not call the constructor of its base."""

    def __init__(self, width: int) -> None:
        self.width = width

    def build(self, hp: HyperParameters) -> Any:
        return hp.Int("units", self.width, 9)


class Child(Plain):
    def build(self, hp: HyperParameters) -> Any:
        return [*super().build(hp), hp.Boolean("more")]


class Trained(Plain):
    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        return 1.0


class FakeModel:
    def fit(self, *args: object, **kwargs: object) -> tuple[object, ...]:
        return args, kwargs


def build(hp: HyperParameters) -> Any:
    return hp.Int("units", 1, 9)


def names(hp: HyperParameters) -> list[str]:
    return [each.name for each in hp.space]


def test_a_hypermodel_registers_its_names() -> None:
    hp = HyperParameters()
    assert Child().build(hp) == [4, False]
    assert names(hp) == ["units", "more"]


@pytest.mark.parametrize("kind", [Plain, Child])
def test_what_is_not_tunable_registers_nothing(kind: type[Plain]) -> None:
    hp = HyperParameters(values={"units": 7})
    assert kind(tunable=False).build(hp)[0] == 7  # known values hold
    assert names(hp) == []
    assert hp.values == {"units": 7}


def test_what_is_not_tunable_draws_no_values() -> None:
    hp = HyperParameters(fill=lambda each: 9)
    assert Plain(tunable=False).build(hp) == [4]


def test_a_subclass_need_not_call_the_constructor() -> None:
    hypermodel = Bare(3)
    assert (hypermodel.name, hypermodel.tunable) == (None, True)
    assert hypermodel.build(HyperParameters()) == 3


def test_build_must_be_defined() -> None:
    with pytest.raises(NotImplementedError, match="HyperModel must define build"):
        HyperModel().build(HyperParameters())


def test_fit_passes_everything_on_to_the_model() -> None:
    result = Plain().fit(HyperParameters(), FakeModel(), 1, 2, callbacks=[])
    assert result == ((1, 2), {"callbacks": []})


def test_declare_hyperparameters_does_nothing_by_default() -> None:
    hp = HyperParameters()
    Plain().declare_hyperparameters(hp)
    assert names(hp) == []


def test_as_hypermodel_takes_none_and_hypermodels_as_they_are() -> None:
    hypermodel = Plain()
    assert as_hypermodel(None) is None
    assert as_hypermodel(hypermodel) is hypermodel


def test_as_hypermodel_wraps_functions_and_methods() -> None:
    for function in (build, Bare(1).build, lambda hp: build(hp)):
        hypermodel = as_hypermodel(function)
        assert isinstance(hypermodel, DefaultHyperModel)
        assert type(hypermodel).__name__ == "DefaultHyperModel"
        assert hypermodel.build(HyperParameters()) == 1


def _fake_keras_model() -> object:
    class Model:
        def __call__(self) -> None: ...

    Model.__module__ = "keras.src.models.model"
    return type("Sequential", (Model,), {})()


async def _async_build(hp: HyperParameters) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Plain, r"Plain is a class; pass an instance: Plain\(\)"),
        (_fake_keras_model(), r"one finished model \(Sequential\); pass the function"),
        (_async_build, "write `def build"),
        (3, "it is a int"),
        ("resnet", "it is a str"),
    ],
)
def test_as_hypermodel_refuses_what_builds_no_models(wrong: object, message: str) -> None:
    with pytest.raises(FatalTypeError, match=message):
        as_hypermodel(wrong)


def test_a_model_class_is_a_function_that_builds() -> None:
    class Model:
        def __init__(self, hp: HyperParameters) -> None:
            self.units = hp.Int("units", 2, 3)

    Model.__module__ = "keras.src.models.model"
    hypermodel = as_hypermodel(Model)
    assert hypermodel is not None
    assert hypermodel.build(HyperParameters()).units == 2


def test_defines_fit() -> None:
    assert defines_fit(Trained())
    assert not defines_fit(Plain())
    assert not defines_fit(DefaultHyperModel(build))
    patched = Plain()
    patched.fit = lambda hp, model: 1.0  # type: ignore[method-assign, misc, assignment]
    assert defines_fit(patched)


@pytest.mark.parametrize("tunable", [True, False])
def test_it_can_be_copied_and_pickled(tunable: bool) -> None:
    for twin in (
        copy.deepcopy(Child("mine", tunable)),
        pickle.loads(pickle.dumps(Child("mine", tunable))),
        cloudpickle.loads(cloudpickle.dumps(Child("mine", tunable))),
    ):
        hp = HyperParameters()
        assert twin.build(hp) == [4, False]
        assert bool(names(hp)) is tunable
        assert twin.name == "mine"


SENDS_A_CLASS_OF_MAIN = """
import cloudpickle, sys
from aiotune.hypermodel import HyperModel

class Mine(HyperModel):
    def __init__(self, width):
        super().__init__(tunable=False)
        self.width = width

    def build(self, hp):
        return hp.Int("units", self.width, 9)

    def fit(self, hp, model):
        return super().fit(hp, model)

sys.stdout.buffer.write(cloudpickle.dumps(Mine(5)))
"""


def test_a_class_of_main_travels_to_another_process() -> None:
    sent = subprocess.run(
        [sys.executable, "-c", SENDS_A_CLASS_OF_MAIN], check=True, capture_output=True
    )
    hypermodel = pickle.loads(sent.stdout)
    hp = HyperParameters()
    assert hypermodel.build(hp) == 5
    assert names(hp) == []
    assert defines_fit(hypermodel)
