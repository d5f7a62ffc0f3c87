"""A web service that searches, retrains the best model on all data, and measures it; it answers meanwhile.

Nothing is trained in the service's own process. Needs `pip install starlette uvicorn`. Run it as a service,
`uvicorn retrain:app`, or as a script, which plays the client, too.
"""

import asyncio
import json
import socket
import urllib.request

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import aiotune

chance = np.random.default_rng(0)
x = chance.normal(size=(600, 8)).astype("float32")
y = (x[:, 0] * x[:, 1] > 0).astype("int32")
x_test, y_test = x[500:], y[500:]
x, y = x[:500], y[:500]


def build(hp):
    import keras  # in the child processes only

    model = keras.Sequential([keras.layers.Input((8,))])
    model.add(keras.layers.Dense(hp.Int("units", 8, 64, step=8), activation="relu"))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


tuner = aiotune.RandomSearch(
    build, "val_loss", max_trials=4, directory="results", project_name="service", seed=0
)


async def train(request):
    """Search, then train the best values on all data. A search that is there already is not repeated."""
    await tuner.search(x, y, validation_split=0.2, epochs=3, verbose=0)
    best = tuner.get_best_hyperparameters()[0]
    app.state.model = await tuner.retrain(best, x, y, epochs=8)
    return JSONResponse({"model": str(app.state.model), "values": best.values})


async def score(request):
    """Measure the model of the last training on data that it has not seen."""
    return JSONResponse(await tuner.evaluate(app.state.model, x_test, y_test))


async def status(request):
    return JSONResponse({trial.trial_id: trial.status for trial in tuner.trials})


app = Starlette(
    routes=[Route("/", status), Route("/score", score), Route("/train", train, methods=["POST"])]
)


def ask(method, url):
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
        return json.load(answer)


async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    url = "http://{}:{}".format(*listener.getsockname())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))

    training = asyncio.create_task(asyncio.to_thread(ask, "POST", f"{url}/train"))
    while not training.done():
        print("the service says:", await asyncio.to_thread(ask, "GET", url))
        await asyncio.wait([training], timeout=2)
    trained = await training
    print("trained:", trained)
    metrics = await asyncio.to_thread(ask, "GET", f"{url}/score")
    print(f"on new data: loss {metrics['loss']:.3f}, accuracy {metrics['accuracy']:.3f}")

    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
