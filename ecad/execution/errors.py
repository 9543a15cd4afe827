"""What execution raises."""

from __future__ import annotations


class ExecutionError(ValueError):
    """A schedule cannot be executed as asked: one sentence that says what is wrong and what would be
    right.
    """

    user_facing = True


class Cancelled(Exception):
    """Raised by a caller's own callback to abort a pass between two rows; the pass's caches go with it."""
