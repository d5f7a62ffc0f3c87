"""Tasks that are formulas: their optimum is known, from the literature or by construction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from typing import Any

from quality_tasks import Hyper, Kind, Task

__all__ = ["CORNER", "FUNCTIONS"]

# --- numbers only ---


def branin(hp: Hyper) -> float:
    """Branin and Hoo 1972, on its usual box: three minima."""
    x, y = hp.Float("x", -5.0, 10.0), hp.Float("y", 0.0, 15.0)
    bent = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return float(bent**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


_HARTMANN_HEIGHTS = (1.0, 1.2, 3.0, 3.2)
_HARTMANN_WIDTHS = (
    (10.0, 3.0, 17.0, 3.5, 1.7, 8.0),
    (0.05, 10.0, 17.0, 0.1, 8.0, 14.0),
    (3.0, 3.5, 1.7, 10.0, 17.0, 8.0),
    (17.0, 8.0, 0.05, 10.0, 0.1, 14.0),
)
_HARTMANN_PLACES = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)
_HARTMANN_BEST = (0.20168952, 0.15001069, 0.47687398, 0.27533243, 0.31165162, 0.65730054)


def hartmann6(hp: Hyper) -> float:
    """Hartmann 1973: six minima in six numbers."""
    x = [hp.Float(f"x{index}", 0.0, 1.0) for index in range(6)]
    return -sum(
        height
        * math.exp(-sum(a * (each - p) ** 2 for a, each, p in zip(widths, x, places, strict=True)))
        for height, widths, places in zip(
            _HARTMANN_HEIGHTS, _HARTMANN_WIDTHS, _HARTMANN_PLACES, strict=True
        )
    )


def ackley5(hp: Hyper) -> float:
    """Ackley 1987, the minimum off the centre of the box: a needle in a field of ripples."""
    x = [hp.Float(f"x{index}", -12.0, 20.0) for index in range(5)]
    distance = math.sqrt(sum(each * each for each in x) / 5)
    ripples = sum(math.cos(2 * math.pi * each) for each in x) / 5
    return -20 * math.exp(-0.2 * distance) - math.exp(ripples) + 20 + math.e


def rosen4(hp: Hyper) -> float:
    """The logarithm of 1 + Rosenbrock 1960: a bent valley."""
    x = [hp.Float(f"x{index}", -2.0, 2.0) for index in range(4)]
    return math.log1p(sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(x)))


_LEVY_DECADES = ((-5.0, 0.0), (-3.0, 3.0), (-6.0, -1.0))


def levylog(hp: Hyper) -> float:
    """Levy's function (Laguna and Martí 2005) of the logarithms of three numbers."""
    z = []
    for index, (low, high) in enumerate(_LEVY_DECADES):
        value = hp.Float(f"v{index}", 10.0**low, 10.0**high, sampling="log")
        z.append(10 * (math.log10(value) - low) / (high - low) - 5)
    w = [1 + (each - 1) / 4 for each in z]
    inner = sum((a - 1) ** 2 * (1 + 10 * math.sin(math.pi * a + 1) ** 2) for a in w[:-1])
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return math.sin(math.pi * w[0]) ** 2 + inner + last


_LEVY_BEST = {
    f"v{index}": 10 ** (low + 0.6 * (high - low)) for index, (low, high) in enumerate(_LEVY_DECADES)
}


def styblinski6(hp: Hyper) -> float:
    """Styblinski and Tang 1990: 64 minima in six numbers."""
    x = [hp.Float(f"x{index}", -5.0, 5.0) for index in range(6)]
    return float(sum(each**4 - 16 * each**2 + 5 * each for each in x) / 2)


# --- numbers and categories ---

# Each category's floor, its steepness and where it is lowest. The best one is the narrowest.
_VALLEYS = {
    "a": (0.30, 1.0, 0.2, 0.7, 3),
    "b": (0.10, 0.6, 0.6, 0.4, 6),
    "c": (0.00, 3.0, 0.8, 0.25, 8),
    "d": (0.20, 0.8, 0.35, 0.9, 5),
}


def mixed(hp: Hyper) -> float:
    """Four categories with a valley each."""
    floor, steepness, x_best, y_best, k_best = _VALLEYS[hp.Choice("kind", ["a", "b", "c", "d"])]
    x = hp.Float("x", 0.0, 1.0) - x_best
    y = hp.Float("y", 0.0, 1.0) - y_best - 0.5 * x
    return float(floor + steepness * (x * x + y * y) + 0.01 * (hp.Int("k", 1, 10) - k_best) ** 2)


_RATES = {
    "sgd": -1.5,
    "adam": -3.0,
    "rmsprop": -3.25,
}  # log10 of the best learning rate at a batch of 64
_OPTIMIZERS = {"sgd": 0.02, "adam": 0.0, "rmsprop": 0.015}
_ACTIVATIONS = {"relu": 0.012, "gelu": 0.0, "tanh": 0.03, "sigmoid": 0.08}


def network(hp: Hyper) -> float:
    """The loss of an imagined neural network: lowest, 0.05, where every term below is 0."""
    rate = math.log10(hp.Float("learning_rate", 1e-5, 1e-1, sampling="log"))
    decay = math.log10(hp.Float("weight_decay", 1e-6, 1e-2, sampling="log"))
    width = math.log2(hp.Int("units", 32, 512, step=16))
    layers = hp.Int("layers", 1, 5)
    dropout = hp.Float("dropout", 0.0, 0.5, step=0.1)
    activation = hp.Choice("activation", list(_ACTIVATIONS))
    optimizer = hp.Choice("optimizer", list(_OPTIMIZERS))
    batch = math.log2(hp.Choice("batch", [16, 32, 64, 128, 256], ordered=True))
    off = rate - _RATES[optimizer] - 0.5 * (batch - 6) * math.log10(2)  # from the best rate
    size = width + 0.6 * layers - 9.8  # 0 at 256 units in 3 layers
    terms = (
        0.1 * off * off * (1 + 0.6 * math.tanh(2 * off)),  # too fast is worse than too slow
        0.015 * (decay + 4.2 - 0.3 * size) ** 2,
        0.04 * size * size,
        0.02 * (layers - 3) ** 2,
        0.8 * (dropout - 0.2 - 0.08 * size) ** 2,
        0.006 * (batch - 6) ** 2,
        _OPTIMIZERS[optimizer],
        _ACTIVATIONS[activation] * (1 + 0.2 * (layers - 1)),
    )
    return 0.05 + 2.3 * -math.expm1(-sum(terms) / 2.3)  # a model that learns nothing has 2.3


_NETWORK_BEST = {
    "learning_rate": 1e-3,
    "weight_decay": 10**-4.2,
    "units": 256,
    "layers": 3,
    "dropout": 0.2,
    "activation": "gelu",
    "optimizer": "adam",
    "batch": 64,
}


# --- conditions ---


def conditional(hp: Hyper) -> float:
    """Three models with one to three hyperparameters of their own; the best one has the most."""
    model = hp.Choice("model", ["linear", "tree", "net"])
    shared = hp.Float("shared", 0.0, 1.0)
    with hp.conditional_scope("model", ["linear"]):
        penalty = hp.Float("penalty", 1e-4, 1e2, sampling="log")
    with hp.conditional_scope("model", ["tree"]):
        depth = hp.Int("depth", 1, 12)
        share = hp.Float("share", 0.1, 1.0)
    with hp.conditional_scope("model", ["net"]):
        rate = hp.Float("rate", 1e-5, 1e-1, sampling="log")
        units = hp.Int("units", 8, 128, step=8)
        momentum = hp.Float("momentum", 0.0, 1.0)
    loss: float
    match model:
        case "linear":
            loss = 0.15 + 0.02 * (math.log10(penalty) + 1) ** 2 + 0.3 * (shared - 0.4) ** 2
        case "tree":
            loss = (
                0.08
                + 0.006 * (depth - 5) ** 2
                + 0.5 * (share - 0.7) ** 2
                + 0.3 * (shared - 0.6) ** 2
            )
        case _:
            off = math.log10(rate) + 2.8 + 1.5 * (momentum - 0.6)
            width = 0.05 * (math.log2(units) - 6) ** 2
            loss = 0.1 * off * off + width + (momentum - 0.6) ** 2 + 0.6 * (shared - 0.3) ** 2
    return loss


_CONDITIONAL_BEST = {"model": "net", "shared": 0.3, "rate": 10**-2.8, "units": 64, "momentum": 0.6}


# --- failures ---

_RADIUS = 0.94  # of the disc's quarter in which trials succeed: 1 - pi / 4 * 0.94^2 = 31 % fail


def failing(hp: Hyper) -> float:
    """Improves toward the corner where trials fail; the optimum is on the edge of that region."""
    x, y, z = (hp.Float(name, 0.0, 1.0) for name in "xyz")
    if x * x + y * y > _RADIUS**2:
        if y > x:
            raise MemoryError
        return math.nan
    return float(1 - 0.8 * x - 0.6 * y + 0.5 * (z - 0.3) ** 2)


def _heft(units: int, layers: int, batch: int) -> float:
    """Return the memory of an imagined training, in units of what there is: weights and activations."""
    return (units * units * layers * 3 + units * batch * layers * 12) / 1.15e7


def failing_network(hp: Hyper) -> float:
    """An imagined network that gets better with size until it runs out of memory."""
    units = hp.Int("units", 32, 1024, step=32)
    layers = hp.Int("layers", 1, 8)
    batch = 2 ** hp.Int("log2_batch", 4, 9)
    rate = math.log10(hp.Float("learning_rate", 1e-5, 1e-1, sampling="log"))
    if _heft(units, layers, batch) > 1:
        raise MemoryError
    off = rate + 2.5 + 0.1 * layers - 0.5 * math.log10(batch / 64)
    return float(_loss_of_size(units, layers, batch) + 0.08 * off * off)


def _loss_of_size(units: int, layers: int, batch: int) -> float:
    return 0.1 + 1.5 * math.pow(units, -0.3) + 0.4 / layers + 0.01 * (math.log2(batch) - 7) ** 2


def _sizes() -> Iterable[tuple[int, int, int]]:
    return product(range(32, 1025, 32), range(1, 9), (2**exponent for exponent in range(4, 10)))


_BEST_SIZE = min(
    (size for size in _sizes() if _heft(*size) <= 1), key=lambda size: _loss_of_size(*size)
)
_FAILING_NETWORK_BEST = {
    "units": _BEST_SIZE[0],
    "layers": _BEST_SIZE[1],
    "log2_batch": int(math.log2(_BEST_SIZE[2])),
    "learning_rate": 10 ** (-2.5 - 0.1 * _BEST_SIZE[1] + 0.5 * math.log10(_BEST_SIZE[2] / 64)),
}


def corner(hp: Hyper) -> float:
    """A square whose far corner, 32 % of it, runs out of memory; outside, nearer to it is better."""
    x, y = hp.Float("x", 0.0, 1.0), hp.Float("y", 0.0, 1.0)
    if x + y > _CORNER_EDGE:
        raise MemoryError
    return float(2 - x - y + 0.5 * (x - y) ** 2)


_CORNER_EDGE = 1.2  # the triangle beyond has the area 0.8^2 / 2 = 0.32


# --- all ---


def _points(names: Iterable[str], values: Sequence[float]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _numbered(values: Sequence[float]) -> dict[str, Any]:
    return _points((f"x{index}" for index in range(len(values))), values)


_BRANIN_BEST = {"x": math.pi, "y": 2.275}
_EDGE = _RADIUS * (1 - 1e-9)  # just inside
_BRANIN = 0.39788735772973816
_HARTMANN = -3.32236801141551
_STYBLINSKI = -2.9035340277711765


FUNCTIONS = (
    Task("branin", Kind.ORDINARY, branin, _BRANIN, _BRANIN_BEST),
    Task("hartmann6", Kind.ORDINARY, hartmann6, _HARTMANN, _numbered(_HARTMANN_BEST)),
    Task("ackley5", Kind.ORDINARY, ackley5, 0.0, _numbered([0.0] * 5)),
    Task("rosen4", Kind.ORDINARY, rosen4, 0.0, _numbered([1.0] * 4)),
    Task("levylog", Kind.ORDINARY, levylog, 0.0, _LEVY_BEST),
    Task(
        "styblinski6",
        Kind.ORDINARY,
        styblinski6,
        6 * (_STYBLINSKI**4 - 16 * _STYBLINSKI**2 + 5 * _STYBLINSKI) / 2,
        _numbered([_STYBLINSKI] * 6),
    ),
    Task("mixed", Kind.ORDINARY, mixed, 0.0, {"kind": "c", "x": 0.8, "y": 0.25, "k": 8}),
    Task("network", Kind.ORDINARY, network, 0.05, _NETWORK_BEST),
    Task("conditional", Kind.CONDITIONAL, conditional, 0.0, _CONDITIONAL_BEST),
    Task("noisy_branin", Kind.NOISY, branin, _BRANIN, _BRANIN_BEST, noise=2.0),
    Task("noisy_hartmann6", Kind.NOISY, hartmann6, _HARTMANN, _numbered(_HARTMANN_BEST), noise=0.2),
    Task(
        "failing",
        Kind.FAILING,
        failing,
        1 - _RADIUS,
        {"x": 0.8 * _EDGE, "y": 0.6 * _EDGE, "z": 0.3},
    ),
    Task(
        "failing_network",
        Kind.FAILING,
        failing_network,
        _loss_of_size(*_BEST_SIZE),
        _FAILING_NETWORK_BEST,
    ),
)

CORNER = Task(
    "corner",
    Kind.FAILING,
    corner,
    2 - _CORNER_EDGE,
    {"x": 0.5 * _CORNER_EDGE, "y": 0.5 * _CORNER_EDGE},
)
