"""A service that searches from its start on and answers meanwhile. Tests copy it, and may edit the copy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import aiotune
from aiotune.events import Event
from aiotune.history import History
from tests.support import tuned

HERE = Path(__file__).parent
GATE = "gate"  # the trials end once there is this file


def tell(event: Event, history: History) -> None:
    print("event", os.getpid(), type(event).__name__)


tuner = tuned.make(tuned.Latch, HERE / "results", max_trials=3, observers=[tell])


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks, tuner.start(str(HERE / GATE)) as search:
        tasks.create_task(tell_error(search))
        app.state.search = search
        yield


async def tell_error(search: aiotune.Search) -> None:
    try:
        await search.result()
    except aiotune.errors.AiotuneError as error:
        print("error", os.getpid(), error)


async def status(request: Request) -> JSONResponse:
    search: aiotune.Search = request.app.state.search
    return JSONResponse({"pid": os.getpid(), "running": search.status().running})


async def result(request: Request) -> JSONResponse:
    """Wait for the end of the search, beside whatever else is asked."""
    found = await request.app.state.search.result()
    return JSONResponse(
        {
            "reason": found.reason,
            "trials": {trial.trial_id: trial.status for trial in found.trials},
            "runs": {trial.trial_id: len(trial.runs) for trial in found.trials},
        }
    )


app = Starlette(lifespan=lifespan, routes=[Route("/status", status), Route("/result", result)])
