"""The one error of this package that a user can cause."""

from __future__ import annotations


class ScheduleError(ValueError):
    """A schedule, a schedule file or a question about one is wrong.

    The message is one sentence that names the place (file, step, block, component) and the expected value.
    """

    user_facing = True  # `python -m ecad` prints it as a sentence, without a traceback
