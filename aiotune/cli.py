"""The command line: look into a project, import one of KerasTuner's, look at the machine.

    aiotune show results/mnist
    aiotune trials results/mnist --status COMPLETED --json
    aiotune import results/mnist --to results/mnist_aiotune
    aiotune gpus

`show` and `trials` read only, and work while a search runs. Exit codes: 0; 1 for what cannot be done, said in
one line; 2 for a wrong command line; 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from aiotune.errors import AiotuneError, FatalValueError
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.objective import DefaultObjective, Objective
from aiotune.printable import one_line, printable
from aiotune.ranking import best_trials
from aiotune.results import results_text
from aiotune.store.reader import read_facts
from aiotune.trial import Trial, TrialState
from aiotune.usage import Usage, total_usage, usage_text
from aiotune.version import __version__

__all__ = ["main"]

_LONGEST_VALUE = 24  # characters, of a value in a table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. SystemExit for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except AiotuneError as error:
        print(printable(f"aiotune: {error}"), file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has seen enough: `aiotune trials DIR | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


# --- what is asked for ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aiotune",
        description="Look into the projects of aiotune, import those of KerasTuner, and look at the GPUs.",
        epilog="`aiotune COMMAND --help` says more. A project is a directory that a tuner wrote: "
        "its directory=, and below it its project_name=.",
    )
    parser.add_argument("--version", action="version", version=f"aiotune {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_show(commands)
    _add_trials(commands)
    _add_import(commands)
    _add_gpus(commands)
    return parser


def _add_show(commands: Any) -> None:
    show = commands.add_parser(
        "show",
        help="sum up a project: its state, its trials by status, the best of them",
        description="Sum up a project. It is read only; a search may be running there.",
    )
    show.add_argument("project", type=Path, metavar="DIR", help="the project's directory")
    show.add_argument(
        "--top", type=_count, default=10, metavar="N", help="show so many of the best trials (10)"
    )
    show.add_argument("--json", action="store_true", help="write one JSON object")
    show.set_defaults(command=_show)


def _add_trials(commands: Any) -> None:
    trials = commands.add_parser(
        "trials",
        help="list the trials of a project, a line for each",
        description="List trials in the order of asking. The project is read only; a search may be running "
        "there.",
    )
    trials.add_argument("project", type=Path, metavar="DIR", help="the project's directory")
    trials.add_argument(
        "--status",
        type=str.upper,
        choices=[state.value for state in TrialState],
        help="only trials that stand so",
    )
    trials.add_argument("--best", action="store_true", help="only those with a score, best first")
    trials.add_argument(
        "--json",
        action="store_true",
        help="write a JSON object for each trial, on a line of its own, with its space, values, metrics at "
        "every step, and runs",
    )
    trials.set_defaults(command=_trials)


def _add_import(commands: Any) -> None:
    importing = commands.add_parser(
        "import",
        help="make a project of aiotune from one that KerasTuner wrote",
        description="Read a project that KerasTuner wrote (oracle.json, trial_*/trial.json) and write "
        "one of aiotune, with every trial, metric, score, status and message, so that the search can be "
        "continued here. The source is not changed.",
    )
    importing.add_argument(
        "source", type=Path, metavar="DIR", help="KerasTuner's directory/project_name"
    )
    importing.add_argument(
        "--to",
        type=Path,
        metavar="PROJECT_DIR",
        help="where the project goes (DIR with _aiotune at its end)",
    )
    importing.add_argument(
        "--objective",
        action="append",
        default=[],
        metavar="NAME",
        help="the metric that was searched for; without it, the one that the scores are of. Once for each, "
        "if there were several",
    )
    importing.add_argument(
        "--direction", choices=["min", "max"], help="of the objective, where the files do not tell"
    )
    importing.add_argument(
        "--boolean",
        action="append",
        default=[],
        metavar="NAME",
        help="a Choice that the program declares with True and False: KerasTuner keeps it as 1 and 0",
    )
    importing.add_argument(
        "--checkpoints",
        type=_count_or_all,
        default=10,
        metavar="N|all",
        help="copy the weights of so many of the best trials (10)",
    )
    importing.set_defaults(command=_import)


def _add_gpus(commands: Any) -> None:
    gpus = commands.add_parser(
        "gpus",
        help="list the GPUs of this machine: who holds them, and why one is not used",
        description="List the GPUs and MIG instances of this machine as a search that begins now would see "
        "them, and what the processor offers. It works without a project, and beside searches.",
    )
    gpus.add_argument("--json", action="store_true", help="write one JSON object")
    gpus.set_defaults(command=_gpus)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _count_or_all(text: str) -> int | Literal["all"]:
    return "all" if text == "all" else _count(text)


# --- commands ---


def _show(options: argparse.Namespace) -> None:
    history = _read(options.project)
    if options.json:
        _print_json(_summary(history, options.project, options.top))
        return
    for line in _summary_text(history, options.project, options.top):
        print(printable(line))


def _trials(options: argparse.Namespace) -> None:
    history = _read(options.project)
    trials = list(history.trials.values())
    if options.best:
        trials = best_trials(trials, _objective(history), len(trials))
    chosen = [trial for trial in trials if options.status in (None, trial.status)]
    if options.json:
        for trial in chosen:
            _print_json(_record(trial))
        return
    for line in _table(chosen):
        print(printable(line))


def _import(options: argparse.Namespace) -> None:
    import anyio

    from aiotune.kerastuner_import import import_project, report_text

    source: Path = options.source
    target = options.to or source.absolute().with_name(f"{source.absolute().name}_aiotune")

    async def importing() -> None:
        report = await import_project(
            source,
            target,
            objective=options.objective,
            direction=options.direction,
            booleans=options.boolean,
            keep_checkpoints=options.checkpoints,
        )
        for line in report_text(report):
            print(printable(line))

    anyio.run(importing)


def _gpus(options: argparse.Namespace) -> None:
    from aiotune.cli_gpus import show_gpus

    show_gpus(as_json=options.json)


def _read(project: Path) -> History:
    """Return the history of a project. FatalValueError, naming those below, if the directory is none."""
    store = Layout(project.parent, project.name).store
    if not store.exists():
        raise FatalValueError(_no_project(project))
    return History(read_facts(store))


def _no_project(project: Path) -> str:
    if not project.is_dir():
        return f"{project} is no directory"
    below = sorted(each.parent.name for each in project.glob("*/study.db"))
    if below:
        return f"{project} is no project, but has some: {', '.join(below)}"
    if (project / "oracle.json").exists():
        return (
            f"{project} is a project of KerasTuner: `aiotune import {project}` makes one of aiotune"
        )
    return f"{project} is no project of aiotune: it has no study.db"


# --- text ---


def _summary_text(history: History, project: Path, top: int) -> Iterator[str]:
    yield _state_text(history)
    yield f"Trials: {_counts_text(history)}"
    usage = _usage(history)
    if usage is not None:
        yield f"GPUs: {usage_text(usage)}"
    yield from results_text(history.trials.values(), _objective(history), str(project), top)


def _state_text(history: History) -> str:
    opened, ended = history.opened, history.ended
    if opened is None:
        return "No search has begun"
    what = one_line(f"{opened.oracle}, seed {opened.seed}")
    if ended is None:
        return f"Search ({what}) opened {_date(opened.at)}, not ended: in progress, or its process died"
    message = f": {ended.message}" if ended.message else ""
    return f"Search ({what}) ended {_date(ended.at)} by {ended.reason.value}{message}"


def _counts_text(history: History) -> str:
    counts = Counter(trial.status for trial in history.trials.values())
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"


def _usage(history: History) -> Usage | None:
    return total_usage(trial.usage for trial in history.trials.values())


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"


def _table(trials: Iterable[Trial]) -> Iterator[str]:
    """Yield a line for each trial, columns aligned, below a line that names them."""
    rows = [("trial", "status", "score", "step", "runs", "values")]
    rows.extend(map(_row, trials))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row[:5], widths, strict=True)]
        yield "  ".join([*cells, row[5]]).rstrip()


def _row(trial: Trial) -> tuple[str, str, str, str, str, str]:
    values = trial.hyperparameters.values.items()
    return (
        trial.trial_id,
        trial.status,
        "-" if trial.score is None else f"{trial.score:.6g}",
        "-" if trial.best_step is None else str(trial.best_step),
        str(len(trial.runs)),
        one_line(" ".join(f"{name}={_value_text(value)}" for name, value in values)),
    )


def _value_text(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


# --- JSON ---


def _summary(history: History, project: Path, top: int) -> dict[str, Any]:
    opened, ended, objective = history.opened, history.ended, _objective(history)
    best = best_trials(history.trials.values(), objective, top)
    return {
        "project": str(project),
        "objective": objective.get_config(),
        "seed": opened and opened.seed,
        "oracle": opened and opened.oracle,
        "opened_at": opened and opened.at,
        "ended_at": ended and ended.at,
        "reason": ended and ended.reason.value,
        "message": ended and ended.message,
        "trials": dict(Counter(trial.status for trial in history.trials.values())),
        "usage": _usage_record(_usage(history)),
        "best": [_brief(trial) for trial in best],
    }


def _brief(trial: Trial) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "score": trial.score,
        "best_step": trial.best_step,
        "values": trial.hyperparameters.values,
        "metrics": dict(trial.metrics),
    }


def _record(trial: Trial) -> dict[str, Any]:
    runs = [
        {
            "repeat": run.repeat,
            "attempt": run.attempt,
            "state": run.state.value,
            "devices": list(run.devices),
            "gpu_memory": run.gpu_memory,
            "gpu_fraction": run.gpu_fraction,
            "usage": _usage_record(run.usage),
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "log": run.log,
            "message": run.message,
        }
        for run in trial.runs
    ]
    times = {"created_at": trial.created_at, "ended_at": trial.ended_at}
    return {**trial.get_state(), "final_metrics": dict(trial.metrics), **times, "runs": runs}


def _usage_record(usage: Usage | None) -> dict[str, Any] | None:
    return None if usage is None else asdict(usage)


def _print_json(record: Mapping[str, Any]) -> None:
    """Print it on one line, in strict JSON: "nan", "inf" and "-inf" stand for what that lacks."""
    print(json.dumps(_strict(record), allow_nan=False))


def _strict(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return repr(value)
        case Mapping():
            return {key: _strict(item) for key, item in value.items()}
        case list() | tuple():
            return [_strict(item) for item in value]
        case _:
            return value


def _objective(history: History) -> Objective:
    opened = history.opened
    return Objective.from_config(opened.objective) if opened else DefaultObjective()
