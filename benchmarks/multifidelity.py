"""Hyperband, pruners and stops, measured: whole sweeps beside KerasTuner's, epochs saved, batches after a stop.

    python benchmarks/multifidelity.py --sweep --sweep27 --pruner --stop --kerastuner PYTHON --record
    python benchmarks/multifidelity.py --simulated --scale --record

KerasTuner wants an environment of its own: requirements-peers.txt says what is in it.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from multifidelity_part import Part, keep, show

_FOLDER = Path(__file__).parent / "multifidelity"


def main() -> None:
    given = _options()
    failed = []
    for name, measure in _PARTS.items():
        if not getattr(given, name):
            continue
        try:  # one part that breaks does not cost the others
            part = measure(given)
        except (Exception, SystemExit):
            traceback.print_exc()
            failed.append(name)
            continue
        show(part)
        if given.record:
            keep(part, _FOLDER)
    if failed:
        raise SystemExit(f"could not be measured: {', '.join(failed)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--sweep", action="store_true", help="whole sweeps at max_epochs=9")
    add("--sweep27", action="store_true", help="the same at max_epochs=27")
    add("--pruner", action="store_true", help="epochs that MedianPruner saves")
    add("--stop", action="store_true", help="batches after the decision to stop")
    add("--simulated", action="store_true", help="how busy 8 simulated devices are")
    add("--scale", action="store_true", help="1,000 simulated devices, 100,000 trials")
    add("--kerastuner", type=Path, metavar="PYTHON", help="of an environment that has KerasTuner")
    add("--seeds", type=int, default=5, help="of --sweep and --pruner; default: %(default)s")
    add("--seeds27", type=int, default=2, help="of --sweep27; default: %(default)s")
    add("--record", action="store_true", help="keep results and pictures in multifidelity/")
    given = parser.parse_args()
    if not any(getattr(given, name) for name in _PARTS):
        parser.error(f"which part? {', '.join('--' + name for name in _PARTS)}")
    return given


# What a part needs is imported with it alone.


def _sweep(given: argparse.Namespace) -> Part:
    from multifidelity_sweep import measure

    return measure(9, given.seeds, given.kerastuner)


def _sweep27(given: argparse.Namespace) -> Part:
    from multifidelity_sweep import measure

    return measure(27, given.seeds27, given.kerastuner)


def _pruner(given: argparse.Namespace) -> Part:
    from multifidelity_pruner import measure

    return measure(given.seeds)


def _stop(given: argparse.Namespace) -> Part:
    from multifidelity_stop import measure

    return measure()


def _simulated(given: argparse.Namespace) -> Part:
    from multifidelity_simulated import measure

    return measure()


def _scale(given: argparse.Namespace) -> Part:
    from multifidelity_simulated import measure_scale

    return measure_scale()


_PARTS: Mapping[str, Callable[[argparse.Namespace], Part]] = {
    "sweep": _sweep,
    "sweep27": _sweep27,
    "pruner": _pruner,
    "stop": _stop,
    "simulated": _simulated,
    "scale": _scale,
}


if __name__ == "__main__":
    main()
