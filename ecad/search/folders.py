"""Where a user's runs lie, and how a run is found by its name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ecad.search.errors import SearchError

SUFFIX = ".sqlite"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def data_folder(explicit: str | Path | None = None) -> Path:
    """The folder for what users make (runs, renders, saved schedules), created if it is not there.

    It is `explicit` (a command's `--data-dir`), else `ECAD_DATA_DIR`, else `/data` on a Space with storage,
    else the platform's user data directory. Raises `SearchError` if it cannot be made or written.
    """
    if explicit is not None:
        folder = Path(explicit).expanduser()
    elif os.environ.get("ECAD_DATA_DIR"):
        folder = Path(os.environ["ECAD_DATA_DIR"]).expanduser()
    elif os.environ.get("SPACE_ID") and os.access("/data", os.W_OK):
        folder = Path("/data")
    else:
        from platformdirs import user_data_path

        folder = user_data_path("ecad-explorer", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchError(f"the data folder {folder} cannot be made ({error.strerror})") from None
    if not os.access(folder, os.W_OK):
        raise SearchError(
            f"the data folder {folder} cannot be written; name another with --data-dir or ECAD_DATA_DIR"
        )
    return folder


def runs_folder(data_dir: str | Path | None = None) -> Path:
    """The folder of the runs inside the data folder, created if it is not there."""
    folder = data_folder(data_dir) / "runs"
    folder.mkdir(exist_ok=True)
    return folder


def run_path(name: str, data_dir: str | Path | None = None) -> Path:
    """The file of the run called `name`, whether it exists or not; a name that is no file name is refused."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SearchError(
            f"a run's name is 1 to 80 letters, digits, dots, dashes or underscores and begins with a letter"
            f" or digit, not {name!r}"
        )
    return runs_folder(data_dir) / (name.removesuffix(SUFFIX) + SUFFIX)


def find_run(run: str | Path, data_dir: str | Path | None = None) -> Path:
    """The file of a run given by its path or its name; `SearchError` lists the runs if it is neither."""
    path = Path(run).expanduser()
    if path.is_file():
        return path
    if isinstance(run, str) and _NAME.fullmatch(run):
        path = run_path(run, data_dir)
        if path.is_file():
            return path
    names = run_names(data_dir)
    known = f"the runs here are {', '.join(names)}" if names else "there is no run here yet"
    raise SearchError(f"no run is called {str(run)!r} and no such file exists; {known}")


def run_names(data_dir: str | Path | None = None) -> list[str]:
    """Names of the runs in the data folder, newest first."""
    files = sorted(runs_folder(data_dir).glob("*" + SUFFIX), key=lambda file: -file.stat().st_mtime)
    return [file.name.removesuffix(SUFFIX) for file in files]
