"""How a tf.data.Dataset travels: as the graph of its pipeline, from which the child makes it anew.

Its variables (also those of Keras's layers within) travel with the value that they have now, and tables with
their content. What is Python in a pipeline does not: `from_generator`, `py_function`, `numpy_function`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from aiotune.errors import FatalRuntimeError
from aiotune.executors.culprit import CannotTravel

__all__ = ["captured_devices", "is_tf_dataset", "reduce_tf_dataset"]

_LAZY_REMEDY = (
    "Pass aiotune.Lazy(function) instead: the function makes the dataset, in each child process."
)
_IGNORE_STATE = (
    1  # variables are then sent as values; the default warns of each, and 2 refuses them
)
_PYTHON_OPS = frozenset({"PyFunc", "EagerPyFunc", "PyFuncStateless"})


def is_tf_dataset(thing: object) -> bool:
    """Return whether it is a tf.data.Dataset. Imports nothing: where there is one, TensorFlow is loaded."""
    tensorflow = sys.modules.get("tensorflow")
    kind = getattr(getattr(tensorflow, "data", None), "Dataset", None)
    return isinstance(kind, type) and isinstance(thing, kind)


def reduce_tf_dataset(thing: object) -> Any:
    """Return how a dataset travels, with the names that Keras gave it; NotImplemented for all else.

    CannotTravel, with the remedy, where its pipeline calls Python or TensorFlow cannot tell its graph.
    """
    if not is_tf_dataset(thing):
        return NotImplemented
    dataset: Any = thing
    _refuse_device_memory(dataset)
    graph = _graph_of(dataset)
    _refuse_python(dataset, graph)
    names = {name: value for name, value in vars(dataset).items() if not name.startswith("_")}
    content = np.frombuffer(graph, np.uint8)  # an array is sent beside the pickle
    return _dataset, (content, dataset.element_spec, dataset.options(), names)


def captured_devices(dataset: Any) -> set[str]:
    """Return the devices that hold what the functions of the pipeline capture, such as variables.

    TensorFlow has no public way to them: an empty set stands for none, and for a TensorFlow that hides them.
    """
    functions: list[Any] = getattr(dataset, "_functions", list)()
    captured = [
        each
        for function in functions
        for each in getattr(getattr(function, "function", None), "captured_inputs", ())
    ]
    devices = {str(getattr(each, "device", "")) for each in captured}
    return devices.union(*map(captured_devices, getattr(dataset, "_inputs", list)()))


def _refuse_device_memory(dataset: Any) -> None:
    """Refuse a variable on a GPU: TensorFlow would read its value as if it lay in the host's memory."""
    tf: Any = sys.modules["tensorflow"]
    if not tf.config.list_logical_devices("GPU"):
        return
    device = next((each for each in captured_devices(dataset) if "GPU" in each), None)
    if device is not None:
        raise CannotTravel(
            dataset,
            f"it is a tf.data.Dataset with a variable on {device}. Make the layers of its pipeline "
            f'`with tf.device("CPU:0"):`. Or: {_LAZY_REMEDY}',
        )


def _graph_of(dataset: Any) -> bytes:
    tf: Any = sys.modules["tensorflow"]
    try:
        variant = tf.data.experimental.to_variant(dataset)
        graph = tf.raw_ops.DatasetToGraphV2(
            input_dataset=variant,
            external_state_policy=_IGNORE_STATE,
            strip_device_assignment=True,
        )
        content: bytes = graph.numpy()
    except Exception as error:  # whatever a TensorFlow of another version raises
        raise CannotTravel(
            dataset,
            f"it is a tf.data.Dataset, and TensorFlow {tf.__version__} cannot tell its graph "
            f"({type(error).__name__}: {error}). {_LAZY_REMEDY}",
        ) from error
    if not content:  # TensorFlow's answer to what does not fit into a protocol buffer
        raise CannotTravel(
            dataset,
            "it is a tf.data.Dataset whose graph has over 2 GB, most of it arrays given to "
            f"from_tensor_slices. Pass the arrays themselves, or files. {_LAZY_REMEDY}",
        )
    return content


def _refuse_python(dataset: Any, graph: bytes) -> None:
    if b"PyFunc" not in graph:
        return  # so that a graph of gigabytes is not parsed
    tf: Any = sys.modules["tensorflow"]
    parsed = tf.compat.v1.GraphDef.FromString(graph)
    functions = [node for function in parsed.library.function for node in function.node_def]
    ops = {node.op for node in (*parsed.node, *functions)}
    if ops & _PYTHON_OPS:
        source = "py_function or numpy_function"
        if "GeneratorDataset" in ops:
            source = "Dataset.from_generator"
        raise CannotTravel(
            dataset,
            f"it is a tf.data.Dataset that calls a Python function ({source}), which its graph cannot take "
            f"along. {_LAZY_REMEDY}",
        )


def _dataset(
    graph: np.ndarray[Any, Any], element_spec: Any, options: Any, names: dict[str, Any]
) -> Any:
    import tensorflow as tf

    try:
        variant = tf.raw_ops.DatasetFromGraph(graph_def=graph.tobytes())
        dataset = tf.data.experimental.from_variant(variant, element_spec)
        if options != tf.data.Options():
            dataset = dataset.with_options(options)
    except Exception as error:
        raise FatalRuntimeError(
            f"TensorFlow {tf.__version__} cannot make a tf.data.Dataset anew from its graph "
            f"({type(error).__name__}: {error}). {_LAZY_REMEDY}"
        ) from error
    for name, value in names.items():
        setattr(dataset, name, value)
    return dataset
