"""The program as a service: its searches run beside the answers."""

import asyncio
from contextlib import asynccontextmanager

from program import main
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app):
    async with asyncio.TaskGroup() as tasks:
        app.state.searches = tasks.create_task(main())
        yield


async def status(request):
    return JSONResponse({"is_done": request.app.state.searches.done()})


async def result(request):
    return JSONResponse(await request.app.state.searches)


app = Starlette(lifespan=lifespan, routes=[Route("/status", status), Route("/result", result)])
