"""How data travels to the children: what pickle itself does not know, or would copy into each of them."""

from __future__ import annotations

from aiotune.executors.payload import Reducer
from aiotune.frameworks.arrays import reduce_array
from aiotune.frameworks.tensors import reduce_jax_array, reduce_torch_tensor
from aiotune.frameworks.tf_data import reduce_tf_dataset

__all__ = ["REDUCERS"]

REDUCERS: tuple[Reducer, ...] = (
    reduce_array,
    reduce_tf_dataset,
    reduce_torch_tensor,
    reduce_jax_array,
)
