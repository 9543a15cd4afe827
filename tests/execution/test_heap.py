"""The heap that stays between passes."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from ecad.execution.heap import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap can be told")
def test_memory_freed_once_is_not_taken_from_the_system_again():
    assert keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(2**17) for _ in range(64)]  # 0.5 MiB each, 8,192 pages together
        del tensors
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(3)) < 800
