"""Where a project keeps its files: the one class that names each of them.

{directory}/{project_name}/
    study.db              the store (with -wal and -shm beside it while in use)
    study.lock            held by the process that owns the search; says which
    server.log            what the fork server printed: imports and their warnings
    trial_0007/
        run-0.log         stdout and stderr of the trial's first run
        repeat-0/         checkpoints of its first repeat
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one project. Naming a path creates nothing."""

    directory: Path
    project_name: str

    @property
    def root(self) -> Path:
        return self.directory / self.project_name

    @property
    def store(self) -> Path:
        return self.root / "study.db"

    @property
    def lock(self) -> Path:
        return self.root / "study.lock"

    @property
    def server_log(self) -> Path:
        return self.root / "server.log"

    def trial(self, trial_id: str) -> Path:
        return self.root / f"trial_{trial_id}"

    def run_log(self, trial_id: str, run: int) -> Path:
        return self.trial(trial_id) / f"run-{run}.log"

    def repeat(self, trial_id: str, repeat: int) -> Path:
        return self.trial(trial_id) / f"repeat-{repeat}"
