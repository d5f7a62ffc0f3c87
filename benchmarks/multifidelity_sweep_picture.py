"""The picture of the sweeps: the best score over time, and what each slot does, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low

from multifidelity_timeline import Sweep

__all__ = ["picture"]

_WIDTH, _LEFT, _RIGHT = 820, 110, 30
_TOP, _PLOT_HEIGHT = 50, 260
_LANE_HEIGHT, _LANE_STEP = 22, 32
_LOWEST = 0.9  # of the scores that are drawn
_SIDES = ("#d62728", "#1f77b4")
_PHASES = {"build": "#9467bd", "trace": "#ff7f0e", "train": "#2ca02c", "checkpoint": "#17becf"}


def picture(title: str, sides: Mapping[str, Sequence[Sweep]], goal: float) -> str:
    """Return a line for each sweep, and the slots of each side's median one."""
    shown = [(side, _typical(sweeps)) for side, sweeps in sides.items()]
    longest = max(each.seconds for sweeps in sides.values() for each in sweeps)
    count = sum(len(sweep.lanes) for _, sweep in shown)
    lanes_top = _TOP + _PLOT_HEIGHT + 70
    height = lanes_top + count * _LANE_STEP + 40

    def x(seconds: float) -> float:
        return _LEFT + seconds / longest * (_WIDTH - _LEFT - _RIGHT)

    def y(score: float) -> float:
        return _TOP + (1 - max(score, _LOWEST)) / (1 - _LOWEST) * _PLOT_HEIGHT

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(_LEFT, 20, title, size=14),
        _text(_LEFT, 38, f"best score so far, each seed; dashed: {goal:.0%}", colour="#666666"),
    ]
    for seconds in _ticks(longest):
        parts.append(_rule(x(seconds), _TOP, x(seconds), height - 40))
        parts.append(_text(x(seconds), height - 22, f"{seconds:g} s", anchor="middle"))
    for percent in range(90, 101, 2):
        parts.append(_rule(x(0), y(percent / 100), x(longest), y(percent / 100)))
        parts.append(_text(_LEFT - 8, y(percent / 100) + 4, f"{percent} %", anchor="end"))
    parts.append(_rule(x(0), y(goal), x(longest), y(goal), colour="#666666", dashes="4 3"))
    for place, (colour, (side, sweeps)) in enumerate(zip(_SIDES, sides.items(), strict=False)):
        for sweep in sweeps:
            points = " ".join(f"{x(at):.1f},{y(score):.1f}" for at, score in _steps(sweep))
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            )
        below = _TOP + _PLOT_HEIGHT - 12 - 16 * place
        parts.append(_text(x(longest) - 8, below, side, anchor="end", colour=colour))
    parts += _legend(lanes_top - 38)
    top = lanes_top
    for side, sweep in shown:
        for number, lane in enumerate(sweep.lanes.values(), start=1):
            name = side if len(sweep.lanes) == 1 else f"{side}, slot {number}"
            parts.append(_text(_LEFT - 8, top + 15, name, anchor="end"))
            for phase, begin, end in lane:
                parts.append(_box(x(begin), top, x(end) - x(begin), _PHASES[phase]))
            parts.append(_box(x(sweep.seconds), top, 1.5, "#222222"))
            top += _LANE_STEP
    return "\n".join([*parts, "</svg>\n"])


def _typical(sweeps: Sequence[Sweep]) -> Sweep:
    """Return the sweep of median length."""
    middle = median_low(each.seconds for each in sweeps)
    return next(each for each in sweeps if each.seconds == middle)


def _steps(sweep: Sweep) -> Iterator[tuple[float, float]]:
    """Yield the corners of its line, up to the end of the program."""
    last: float | None = None
    for at, score in sweep.curve:
        if last is not None:
            yield at, last
        yield at, score
        last = score
    if last is not None:
        yield sweep.seconds, last


def _ticks(longest: float) -> list[float]:
    step = next(each for each in (5, 10, 20, 30, 60, 120, 300, 600) if longest / each <= 12)
    return [float(seconds) for seconds in range(0, int(longest) + 1, step)]


def _legend(top: float) -> Iterator[str]:
    yield _text(_LEFT, top + 12, "the median sweep of each side:")
    for place, (phase, colour) in enumerate(_PHASES.items()):
        left = _LEFT + 215 + 110 * place
        yield _box(left, top + 2, 14, colour, height=12)
        yield _text(left + 20, top + 12, phase)


def _rule(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = "#dddddd", dashes: str = "none"
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-dasharray="{dashes}"/>'
    )


def _box(x: float, y: float, width: float, colour: str, *, height: float = _LANE_HEIGHT) -> str:
    return f'<rect x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height}" fill="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#222222"
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}">{text}</text>'
