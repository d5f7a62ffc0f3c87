"""What a fork server imports: all of them. It finds a GPU, as Keras does when it is imported on PyTorch."""

from __future__ import annotations

import jax  # noqa: F401
import tensorflow  # noqa: F401
import torch

SEES_GPU_AT_IMPORT = torch.cuda.is_available()
