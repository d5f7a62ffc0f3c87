"""What a trial that descends from another one begins with: a copy of its checkpoints."""

from __future__ import annotations

import shutil

from aiotune.errors import FatalRuntimeError
from aiotune.layout import BEFORE, Layout
from aiotune.private_files import check_directory, make_directory

__all__ = ["inherit"]


def inherit(layout: Layout, parent: str, child: str) -> None:
    """Let each repeat of trial `child` begin with the files of that repeat of trial `parent`. It blocks.

    Copies, not links: user code may change files in place. What the parent's own last budget began with stays
    behind. What an earlier, interrupted call has left is replaced. FatalRuntimeError if the files cannot be
    copied.
    """
    without_former = shutil.ignore_patterns(f"{BEFORE}[0-9]*")
    try:
        check_directory(layout.trial(child))
        check_directory(layout.trial(parent))
        for left in layout.trial(child).glob("repeat-*"):
            shutil.rmtree(left)
        for path in sorted(layout.trial(parent).glob("repeat-*")):
            check_directory(path)
            make_directory(layout.trial(child))
            # A link is copied as one: what it leads to is none of the trial's files.
            copy = layout.trial(child) / path.name
            shutil.copytree(path, copy, ignore=without_former, symlinks=True)
    except (OSError, RecursionError) as error:  # also for directories that are a thousand deep
        raise FatalRuntimeError(
            f"the checkpoints of trial {parent} cannot be copied for trial {child}, which goes on from them: "
            f"{error}. Make room, and call search() again to go on"
        ) from error
