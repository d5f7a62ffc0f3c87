"""A process that imports Keras once, keeps a fork server that has it, and runs each example as `python` would.

A request is one line, [script, directory, arguments]; the answer is one too: {"shown": text}, what the script
printed, or {"error": text}. The scripts run one after the other in this process, as its `__main__`: forks of it
could not share the fork server.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import aiotune
from aiotune.executors.launch import acquire_server, release_server
from aiotune.processes import modules_to_preload
from aiotune.settings import Settings

LONGEST_SCRIPT_SECONDS = 400.0  # far above what any of them takes; reaching it is a failure


def _run(script: Path, directory: str, arguments: list[str]) -> None:
    os.chdir(directory)
    sys.argv[:] = [str(script), *arguments]
    path = list(sys.path)
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.path[:] = path
        _forget_modules_of(script.parent)


def _forget_modules_of(directory: Path) -> None:
    """The next script may have others of the same names."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name != "__main__" and file and Path(file).parent == directory:
            del sys.modules[name]


def _answer(script: str, directory: str, arguments: list[str]) -> str:
    faulthandler.dump_traceback_later(LONGEST_SCRIPT_SECONDS, exit=True)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            _run(Path(script), directory, arguments)
        except BaseException:
            return json.dumps({"error": shown.getvalue() + traceback.format_exc()})
        finally:
            faulthandler.cancel_dump_traceback_later()
    return json.dumps({"shown": shown.getvalue()})


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints is no answer
    tuner = aiotune.RandomSearch(lambda hp: None, "val_loss", directory=sys.argv[1])
    # It imports in the background, while this process does.
    server = acquire_server(modules_to_preload(tuner, (), Settings()))
    try:
        import keras  # noqa: F401

        for line in sys.stdin:
            print(_answer(*json.loads(line)), file=answers, flush=True)
    finally:
        release_server(server)


if __name__ == "__main__":
    main()
