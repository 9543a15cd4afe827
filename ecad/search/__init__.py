"""Searching for schedules: settings, the run on disk, evaluation, NSGA-II.

The package is also the function `ecad.search(...)`: `from ecad import search` is that function, whatever was
imported before.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from ecad.search.errors import SearchError
from ecad.search.evaluation import Evaluation
from ecad.search.evaluator import Evaluator
from ecad.search.folders import data_folder, find_run, run_names, run_path, runs_folder
from ecad.search.progress import Progress
from ecad.search.run import make_evaluator, open_run
from ecad.search.settings import SearchSettings
from ecad.search.store import RunStore
from ecad.search.thread import Search

__all__ = [
    "Evaluation",
    "Evaluator",
    "Progress",
    "RunStore",
    "Search",
    "SearchError",
    "SearchSettings",
    "data_folder",
    "find_run",
    "make_evaluator",
    "open_run",
    "run_names",
    "run_path",
    "runs_folder",
]


class _CallablePackage(types.ModuleType):
    """`ecad.search` is a public function, and importing this package sets the same attribute to it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from ecad.search.run import search

        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
