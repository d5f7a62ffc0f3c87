"""The picture of simulated searches: for each, a bar for each run on the line of its device. Plain SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aiotune import SimulationResult

__all__ = ["picture"]

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 20, 20, 58
_LINE, _GAP = 8, 34
_COLOURS = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")  # by rung, the lowest first
_TAIL = "#d62728"


def picture(title: str, results: Mapping[str, SimulationResult]) -> str:
    """Return one panel for each search, all on one scale of time, with the beginning of its tail."""
    longest = max(result.seconds for result in results.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    parts, top = [], _TOP
    for name, result in results.items():
        parts += _panel(name, result, top, scale)
        top += result.devices * _LINE + _GAP
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{top}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{title}</text>',
        _legend(),
    ]
    return "\n".join([*head, *parts, "</svg>\n"])


def _legend() -> str:
    return (
        f'<text x="{_LEFT}" y="36" fill="#444444">a line for each device; the darker, the higher the '
        f'rung; white: idle; <tspan fill="{_TAIL}">red</tspan>: the last new trial has started</text>'
    )


def _panel(name: str, result: SimulationResult, top: float, scale: float) -> Iterator[str]:
    busy = result.utilisation(result.last_trial_start)
    yield (
        f'<text x="{_LEFT}" y="{top + 12}">{name}: {busy:.1%} busy before the tail, '
        f"{result.seconds:,.0f} s</text>"
    )
    base = top + 18
    height = result.devices * _LINE
    for rung, colour in enumerate(_COLOURS):
        path = " ".join(_bars(result, rung, base, scale))
        if path:
            yield f'<path d="{path}" stroke="{colour}" stroke-width="{_LINE - 2}"/>'
    tail = _LEFT + result.last_trial_start * scale
    yield f'<path d="M{tail:.1f} {base}v{height}" stroke="{_TAIL}"/>'
    yield (
        f'<path d="M{_LEFT} {base}v{height}h{result.seconds * scale:.1f}v{-height}" '
        'fill="none" stroke="#bbbbbb"/>'
    )


def _bars(result: SimulationResult, rung: int, base: float, scale: float) -> Iterator[str]:
    """Yield the runs of one rung; a run's end is cut a little, so that the next one shows."""
    for run in result.runs:
        if min(run.run, len(_COLOURS) - 1) != rung:
            continue
        line = int(run.devices[0].rpartition(" ")[2])
        x, y = _LEFT + run.start * scale, base + (line + 0.5) * _LINE
        yield f"M{x:.1f} {y:.0f}h{max((run.end - run.start) * scale - 0.5, 0.3):.1f}"
