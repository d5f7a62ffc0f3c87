"""How tensors of PyTorch and JAX travel: as NumPy buffers beside the pickle.

Nothing here imports a framework in the caller: a tensor is there only if its framework is.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from aiotune.executors.culprit import CannotTravel
from aiotune.executors.payload import LARGE_BUFFER_BYTES

__all__ = ["reduce_jax_array", "reduce_torch_tensor"]

# The class of the tensor is among what travels, so that the fork server learns of the framework.


def reduce_torch_tensor(thing: object) -> Any:
    """Return how a torch tensor, or its storage, travels. NotImplemented for all else.

    Tensors are views of storages, and those travel once: what shares memory here shares it in the child. A
    Parameter refers to such a tensor. CannotTravel for a tensor that is not in the host's memory.
    """
    torch = sys.modules.get("torch")
    kind = type(thing)
    if torch is None or kind not in (
        getattr(torch, "Tensor", None),
        getattr(torch, "UntypedStorage", None),
    ):
        return NotImplemented
    value: Any = thing
    if value.device.type not in ("cpu", "meta"):
        raise CannotTravel(
            thing,
            f"it is a torch tensor on the device {value.device}, and the children have their own devices. "
            "Pass tensor.cpu(), or model.cpu().",
        )
    if value.device.type == "meta":
        return NotImplemented
    if kind is torch.UntypedStorage:
        content = torch.empty(0, dtype=torch.uint8).set_(value)
        return _torch_storage, (kind, content.numpy())
    if not _is_plain_view(torch, value):
        return NotImplemented
    place = value.storage_offset(), tuple(value.size()), value.stride()
    return _torch_tensor, (kind, value.untyped_storage(), value.dtype, place, value.requires_grad)


def _is_plain_view(torch: Any, tensor: Any) -> bool:
    is_lazy = tensor.is_conj() or tensor.is_neg()
    return tensor.layout is torch.strided and not (tensor.is_quantized or is_lazy or vars(tensor))


def _torch_storage(kind: type, content: np.ndarray[Any, Any]) -> Any:
    import torch

    return torch.from_numpy(content).untyped_storage()


def _torch_tensor(
    kind: type, storage: Any, dtype: Any, place: tuple[Any, ...], requires_grad: bool
) -> Any:
    import torch

    offset, size, stride = place
    tensor = torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)
    return tensor.requires_grad_(requires_grad)


def reduce_jax_array(thing: object) -> Any:
    """Return how a large JAX array travels; NotImplemented for all else, and for JAX's own random keys."""
    kind = getattr(sys.modules.get("jax"), "Array", None)
    if kind is None or not isinstance(thing, kind):
        return NotImplemented
    array: Any = thing
    is_here = isinstance(array.dtype, np.dtype) and getattr(array, "is_fully_addressable", False)
    if not is_here or array.nbytes <= LARGE_BUFFER_BYTES:
        return NotImplemented
    return _jax_array, (kind, np.asarray(array))


def _jax_array(kind: type, content: np.ndarray[Any, Any]) -> Any:
    import jax

    return jax.numpy.asarray(content)
