"""Functions that the browser may call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def named(function: Callable[[dict], dict], name: str) -> Callable[[dict], dict]:
    """`function` as the plain function `name` that Gradio wants; methods cannot carry its mark.

    Such a call is a public endpoint: what is no object arrives as an empty one.
    """

    @functools.wraps(function)
    def call(query: Any = None) -> dict:
        return function(query if isinstance(query, dict) else {})

    call.__name__ = name
    return call
