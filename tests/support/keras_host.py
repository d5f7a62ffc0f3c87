"""A process that imports Keras once and runs each program of a module in a fork of its own.

The module's name is its argument. A request is one line, [program, directory]; the answer is one too,
{"result": ...} or {"error": text}.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

LONGEST_PROGRAM_SECONDS = 120


def _answer(program: str, directory: str) -> str:
    try:
        result = getattr(sys.modules[sys.argv[1]], program)(Path(directory))
        return json.dumps({"result": result})
    except BaseException:
        return json.dumps({"error": traceback.format_exc()})


def _run(program: str, directory: str) -> str:
    """Return the answer of the program, given from a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST_PROGRAM_SECONDS)
        os.close(reader)
        with os.fdopen(writer, "w") as stream:
            stream.write(_answer(program, directory))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    return answer or json.dumps({"error": f"the program's process died: status {status}"})


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Keras prints is no answer
    import keras  # noqa: F401

    importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        program, directory = json.loads(line)
        print(_run(program, directory), file=answers, flush=True)


if __name__ == "__main__":
    main()
