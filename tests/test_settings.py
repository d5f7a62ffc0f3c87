from __future__ import annotations

from typing import Any

import pytest

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.resources import Limits, Resources
from aiotune.settings import Settings


def test_everything_has_a_default() -> None:
    settings = Settings.of({})
    assert settings == Settings()
    assert settings.limits == Limits()
    assert settings.resources == Resources()


def test_none_means_the_default() -> None:
    assert Settings.of({"limits": None, "gpus": None}) == Settings()


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"max_concurent_trials": 2}, "did you mean max_concurrent_trials"),
        ({"max_trial": 2}, "did you mean max_trials"),
        ({"zzz": 2}, "there are: max_concurrent_trials"),
        ({"limits": 5}, "aiotune.Limits"),
        ({"resources": {"gpus": 1}}, "aiotune.Resources"),
        ({"max_concurrent_trials": 1.5}, "whole number"),
        ({"priority": 0.5}, "priority=0.5: a whole number"),
        ({"priority": True}, "whole number"),
    ],
)
def test_keywords_of_the_wrong_kind_are_refused(keywords: dict[str, Any], match: str) -> None:
    with pytest.raises(FatalTypeError, match=match):
        Settings.of(keywords, ["max_trials"])


@pytest.mark.parametrize(
    "keywords",
    [
        {"max_concurrent_trials": 0},
        {"keep_checkpoints": 0},
        {"keep_checkpoints": "best:0"},
        {"keep_checkpoints": "best:-1"},
        {"keep_checkpoints": "best:"},
        {"keep_checkpoints": "best:²"},
        {"max_disk": "much"},
        {"max_disk": 0},
        {"max_disk": -5},
        {"max_disk": True},
        {"executor": "threads"},
        {"grace_seconds": 0},
        {"checkpoint_every": -1},
        {"durability": "none"},
        {"gpus": 0, "resources": Resources(gpus=1)},
        {"gpus": 0, "resources": Resources(gpus=0.5)},
        {"gpus": 0, "resources": Resources(gpus="shared")},
        {"gpus": 0, "resources": Resources(gpu_memory="1GiB")},
        {"busy_gpus": "wait"},
        {"busy_gpus": "use", "gpus": 0},
        {"preload": ["numpy"], "executor": "inline"},
    ],
)
def test_values_out_of_range_are_refused(keywords: dict[str, Any]) -> None:
    with pytest.raises(FatalValueError, match=next(iter(keywords))):
        Settings.of(keywords)


@pytest.mark.parametrize("keep", [1, "best:3", "promotable", "all", "none"])
def test_checkpoints_to_keep(keep: Any) -> None:
    assert Settings.of({"keep_checkpoints": keep}).keep_checkpoints == keep


def test_another_word_for_checkpoints_is_refused() -> None:
    for keep in ("some", "latest:3"):
        with pytest.raises(FatalTypeError, match=f"keep_checkpoints='{keep}': a number is needed"):
            Settings.of({"keep_checkpoints": keep})
    with pytest.raises(FatalValueError, match='write "best:3" for those of the three best trials'):
        Settings.of({"keep_checkpoints": "best"})


def test_room_for_checkpoints() -> None:
    assert Settings().max_disk_bytes is None
    assert Settings.of({"max_disk": "20GB"}).max_disk_bytes == 20 * 10**9
    assert Settings.of({"max_disk": 4096}).max_disk_bytes == 4096
