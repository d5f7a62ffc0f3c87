from __future__ import annotations

import errno

import pytest

from aiotune.executors.out_of_memory import is_out_of_memory


def named(name: str, text: str = "", base: type[Exception] = Exception) -> Exception:
    """Return an error of a type that a framework has, which is not loaded here."""
    return type(name, (base,), {})(text)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        named("_ArrayMemoryError", base=MemoryError),
        named("ResourceExhaustedError", "OOM when allocating tensor with shape[4096,4096]"),
        named("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB.", RuntimeError),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.93 GiB total)"),
        RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously"),
        RuntimeError("cuda runtime error (2) : out of memory at THCStorage.cu:58"),
        named("XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 B"),
        named("JaxRuntimeError", "RESOURCE_EXHAUSTED: Failed to allocate request for 2.0GiB"),
        named("InternalError", "failed to call cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY"),
        named("CUDARuntimeError", "cudaErrorMemoryAllocation: out of memory", RuntimeError),
        named("CudaAPIError", "[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        named("InternalError", "Failed copying input tensor: Dst tensor is not initialized."),
        named("XlaRuntimeError", "INTERNAL: Failed to allocate 1073741824 bytes for new constant"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error}"[:60],
)
def test_memory_that_ran_out_is_told(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes do not match"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyError("memory"),
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_an_error_raised_from_it_counts() -> None:
    wrapped = RuntimeError("training failed")
    wrapped.__cause__ = ValueError("in the second layer")
    wrapped.__cause__.__cause__ = MemoryError()
    assert is_out_of_memory(wrapped)


def test_an_error_raised_while_it_was_handled_does_not() -> None:
    later = ValueError("the handler has a defect of its own")
    later.__context__ = MemoryError()
    assert not is_out_of_memory(later)


def test_a_ring_of_causes_ends() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_out_of_memory(first)
