"""The one error of this folder that a user can cause."""

from __future__ import annotations


class SearchError(ValueError):
    """Settings, a run file or a request that cannot be; the message is one sentence for the user."""

    user_facing = True
