"""A GPU that runs out of memory, told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ecad.execution.errors import ExecutionError


@contextmanager
def out_of_memory_explained(advice: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into an ExecutionError that says which setting to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ExecutionError(f"the GPU ran out of memory; {advice}") from error
