"""What the rest of the house knows of a model: an image generator that turns prompts into images under a
schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ecad.execution.errors import ExecutionError

if TYPE_CHECKING:
    import numpy as np

    from ecad.schedule import Layout, Schedule

# Called before each row with (row, rows). It may raise `ecad.Cancelled` to abort the pass, and it may run
# another pass on the same image generator: passes share nothing but the weights.
OnRow = Callable[[int, int], None]

PROMPT_LIMIT = 2000  # characters


def check_prompt(prompt: str) -> None:
    """Raise ExecutionError for an empty prompt or one beyond the limit."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ExecutionError("the prompt is empty; write what the image should show")
    if len(prompt) > PROMPT_LIMIT:
        raise ExecutionError(f"the prompt has {len(prompt):,} characters; the limit is {PROMPT_LIMIT:,}")


class Embeddings(Protocol):
    """Encoded prompts, in order. `len()` counts them; `e[i:j]` and `e[[2, 0, 2]]` choose of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice | list[int]) -> Embeddings: ...


class ImageGenerator(Protocol):
    """A loaded model that turns prompts into images under a schedule.

    An image's initial noise depends on its seed and size only.
    """

    name: str
    layout: Layout
    rows: int
    timesteps: tuple[int, ...]
    guidance_scale: float
    height: int
    width: int
    device: Any
    dtype: Any
    threads: int

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides an image's bits apart from prompt, seed and batch size; fit for JSON."""

    def cost_table(self, convention: str = "full") -> Any:
        """The `CostTable` of this very model at its size."""

    def cache_bytes(self, schedule: Schedule) -> int:
        """Peak bytes that one image's pass keeps for later rows under a schedule."""

    def encode(self, prompts: Sequence[str]) -> Embeddings:
        """Encode prompts once; a prompt's embedding does not depend on its neighbours."""

    def denoise(
        self,
        embeddings: Embeddings,
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> Any:
        """Final latents [B, c, h, w] of one pass. schedule None computes everything on the sampler's own
        times.
        """

    def denoise_timed(
        self,
        embeddings: Embeddings,
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> tuple[Any, float]:
        """`denoise`, and the seconds that its loop took (device synchronised, `on_row`'s own time left
        out).
        """

    def decode(self, latents: Any) -> np.ndarray:
        """Latents -> images, uint8 [B, H, W, 3]."""

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> np.ndarray:
        """Images of prompts and seeds (equally many), uint8 [B, H, W, 3]."""

    def generate_timed(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> tuple[np.ndarray, float]:
        """`generate`, and the seconds that the denoising loop alone took (device synchronised)."""
