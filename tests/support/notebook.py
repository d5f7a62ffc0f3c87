"""A Jupyter notebook: cells run one after the other in a kernel of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.support.programs import ROOT

__all__ = ["CellExecutionError", "Notebook", "notebook"]

_CELL_SECONDS = 240  # far above what any cell takes; reaching it is a failure


class _Client(NotebookClient):
    """Passes on what a cell prints while it runs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def output(self, outs: Any, msg: Any, display_id: str, cell_index: int) -> Any:
        for line in msg["content"].get("text", "").splitlines():
            self.lines.put_nowait(line)
        return super().output(outs, msg, display_id, cell_index)


class Notebook:
    def __init__(self, client: _Client) -> None:
        self._client = client

    async def run(self, code: str) -> str:
        """Run a cell and return all that it shows; CellExecutionError if it raises."""
        self._client.nb.cells.append(nbformat.v4.new_code_cell(code))
        index = len(self._client.nb.cells) - 1
        cell = await self._client.async_execute_cell(self._client.nb.cells[index], index)
        return "".join(each.get("text", "") for each in cell.outputs)

    async def wait_for(self, line: str) -> None:
        """Return when the running cell has printed this line."""
        while await self._client.lines.get() != line:
            pass

    async def interrupt(self) -> None:
        """Press the stop button."""
        await self._client.km.interrupt_kernel()


@asynccontextmanager
async def notebook(directory: Path, **environment: str) -> AsyncIterator[Notebook]:
    """Open a notebook whose kernel runs in `directory` with these variables; its end ends the kernel."""
    # Sockets in the file system: those of the network draw a warning.
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(directory / "k"))
    client = _Client(
        nbformat.v4.new_notebook(),
        km=manager,
        timeout=_CELL_SECONDS,
        resources={"metadata": {"path": str(directory)}},
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    async with client.async_setup_kernel(env=variables, cleanup_kc=True):
        yield Notebook(client)
