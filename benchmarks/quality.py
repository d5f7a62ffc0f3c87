"""What a search finds: aiotune's oracles beside random search, Optuna and KerasTuner.

    python benchmarks/quality.py [--seeds 10] [--trials 50] [--oracles bayesian ...] [--tasks NAME ...]

The peers' results were recorded by `quality_peers.py`; `--peers NAME ...` runs them again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from common import Figure, machine, publish
from quality_contest import Contest, figures, first, parallel_figure, parallel_rows, print_table
from quality_corner import CORNER_TRIALS, corner_figures, corner_rows
from quality_cost import cost_figures
from quality_functions import CORNER
from quality_ours import Job, factory, search_all
from quality_peers import PEERS, record
from quality_picture import picture
from quality_scores import Traces
from quality_tasks import Task, tasks
from quality_traces import Recorded, Trace, load, save

import aiotune

_FOLDER = Path(__file__).parent / "quality"


def main() -> None:
    given = _options()
    chosen = tasks(given.tasks)
    for name in given.peers or ():
        peer = PEERS[name]
        record(peer, [*chosen, CORNER], peer.seeds, peer.trials)
    contest = _contest(given, chosen)
    print()
    print_table(contest.task_rows())
    print_table(contest.summary_rows())
    found, notes = [], []
    for oracle in given.oracles:
        some, some_notes = figures(contest, oracle)
        found += [*some, *_further(given, contest, oracle)]
        notes += some_notes
    publish(f"Quality: {given.seeds} seeds, {given.trials} trials", found, None, notes)
    if given.json:
        content = {"machine": machine(), "figures": [asdict(each) for each in found]}
        given.json.write_text(json.dumps({**content, "contenders": contest.to_json()}, indent=1))
    if given.record:
        _record(contest, given.oracles)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--oracles", nargs="+", default=["bayesian"], metavar="NAME[:OPTION=VALUE,...]")
    add("--tasks", nargs="+", metavar="NAME", help="default: all")
    add("--seeds", type=int, default=10)
    add("--trials", type=int, default=50)
    add("--processes", type=int, default=1)
    add("--parallel", type=int, metavar="N", help="also with N trials at a time")
    add("--corner", action="store_true", help="also the out-of-memory corner")
    add("--cost", action="store_true", help="also the time of one suggestion")
    add("--peers", nargs="+", choices=PEERS, help="run these again, and record them")
    add("--json", type=Path, metavar="FILE", help="write tables and figures there, too")
    add("--record", action="store_true", help="keep our results and draw the picture")
    return parser.parse_args()


def _contest(given: argparse.Namespace, chosen: Sequence[Task]) -> Contest:
    contenders: dict[str, Traces] = {
        oracle: _ours(given, oracle, chosen, given.trials) for oracle in given.oracles
    }
    for peer in PEERS:
        recorded = first(load(peer).traces, chosen, given.seeds)
        if recorded:
            contenders[peer] = recorded
    drawn = load("random").traces
    missing = [task.name for task in chosen if task.name not in drawn]
    if missing:
        raise SystemExit(
            f"random search has no results for {', '.join(missing)}: add `--peers random`"
        )
    return Contest(chosen, contenders, drawn, given.seeds, given.trials)


def _ours(
    given: argparse.Namespace,
    oracle: str,
    chosen: Sequence[Task],
    trials: int,
    parallel: int = 1,
) -> dict[str, Sequence[Trace]]:
    """Return the traces of one of our oracles by task."""
    jobs = [
        Job(oracle, task.name, seed, trials, parallel)
        for task in chosen
        for seed in range(given.seeds)
    ]
    traces = search_all(jobs, given.processes)
    return {
        task.name: [trace for job, trace in zip(jobs, traces, strict=True) if job.task == task.name]
        for task in chosen
    }


def _further(given: argparse.Namespace, contest: Contest, oracle: str) -> list[Figure]:
    """Return the figures that were asked for besides."""
    found: list[Figure] = []
    if given.parallel:
        beside = _ours(given, oracle, contest.tasks, given.trials, given.parallel)
        print_table(parallel_rows(contest, oracle, beside, given.parallel))
        found.append(parallel_figure(contest, oracle, beside, given.parallel))
    if given.corner:
        mine = _ours(given, oracle, [CORNER], CORNER_TRIALS)[CORNER.name]
        peers = {name: load(name).traces.get(CORNER.name) for name in PEERS}
        contenders = {oracle: mine, **{name: each for name, each in peers.items() if each}}
        print_table(corner_rows(contenders))
        found += corner_figures(oracle, contenders)
    if given.cost:
        found += cost_figures(oracle, factory(oracle))
    return found


def _record(contest: Contest, oracles: Sequence[str]) -> None:
    for oracle in oracles:
        traces = {**load(oracle).traces, **contest.contenders[oracle]}
        save(oracle, Recorded({"aiotune": aiotune.__version__}, traces))
    lines = {name: contest.curve(name) for name in contest.contenders}
    title = (
        f"Regret (1: random search after 50 trials), geometric mean of {len(contest.tasks)} tasks"
    )
    (_FOLDER / "quality.svg").write_text(picture(title, lines))


if __name__ == "__main__":
    main()
