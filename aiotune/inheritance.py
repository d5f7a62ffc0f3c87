"""What a trial that descends from another one begins with: a copy of its checkpoints."""

from __future__ import annotations

import shutil

from aiotune.errors import FatalRuntimeError
from aiotune.layout import BEFORE, Layout

__all__ = ["inherit"]


def inherit(layout: Layout, parent: str, child: str) -> None:
    """Let each repeat of trial `child` begin with the files of that repeat of trial `parent`. It blocks.

    Copies, not links: user code may change files in place. What the parent's own last budget began with stays
    behind. What an earlier, interrupted call has left is replaced. FatalRuntimeError if the files cannot be
    copied.
    """
    without_former = shutil.ignore_patterns(f"{BEFORE}[0-9]*")
    try:
        for left in layout.trial(child).glob("repeat-*"):
            shutil.rmtree(left)
        for path in sorted(layout.trial(parent).glob("repeat-*")):
            shutil.copytree(path, layout.trial(child) / path.name, ignore=without_former)
    except (OSError, shutil.Error) as error:
        raise FatalRuntimeError(
            f"the checkpoints of trial {parent} cannot be copied for trial {child}, which goes on from them: "
            f"{error}. Make room, and call search() again to go on"
        ) from error
