"""The picture: regret over trials, a line for each contender, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["picture"]

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 150, 40, 50
_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#7f7f7f", "#9467bd", "#ff7f0e", "#17becf", "#8c564b")
_LABEL_HEIGHT = 15


def picture(title: str, lines: Mapping[str, Sequence[float]]) -> str:
    """Return a logarithmic plot of each contender's regret after 1, 2, ... trials."""
    trials = max(len(line) for line in lines.values())
    values = [value for line in lines.values() for value in line]
    low, high = math.log10(min(values)), math.log10(max(values))
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)

    def x(trial: float) -> float:
        return _LEFT + (trial - 1) / (trials - 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - math.log10(value)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 22, title, size=14),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "trials", anchor="middle"),
    ]
    for value in _ticks(low, high):
        parts.append(_rule(x(1), y(value), x(trials), y(value)))
        parts.append(_text(_LEFT - 8, y(value) + 4, f"{value:g}", anchor="end"))
    for trial in (1, *range(10, trials + 1, 10)):
        parts.append(_rule(x(trial), _TOP, x(trial), _HEIGHT - _BOTTOM))
        parts.append(_text(x(trial), _HEIGHT - _BOTTOM + 18, str(trial), anchor="middle"))
    places = _spread({name: y(line[-1]) for name, line in lines.items()})
    for colour, (name, line) in zip(_COLOURS, lines.items(), strict=False):
        points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(line, start=1))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(_text(_WIDTH - _RIGHT + 8, places[name] + 4, name, colour=colour))
    return "\n".join([*parts, "</svg>\n"])


def _ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between two logarithms."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _spread(places: Mapping[str, float]) -> dict[str, float]:
    """Move labels down until none covers another."""
    spread: dict[str, float] = {}
    lowest = -math.inf
    for name in sorted(places, key=lambda each: places[each]):
        lowest = max(places[name], lowest + _LABEL_HEIGHT)
        spread[name] = lowest
    return spread


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#222222"
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}">{text}</text>'
