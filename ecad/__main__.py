"""`python -m ecad COMMAND`: the workbench at the command line.

Every command is one file of `ecad/workbench`, named like the command. It has a docstring whose first line is the
help, `add_arguments(parser)`, and `run(args) -> int | None`, the exit code. Nothing heavy is imported until the
command runs.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import ecad.workbench


def commands() -> list[str]:
    """Names of the commands there are, sorted."""
    names = (module.name for module in pkgutil.iter_modules(ecad.workbench.__path__))
    return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 2 the user's input was at fault, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m ecad",
        description="Caching schedules for diffusion transformers: make, run, measure, search.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the command asked for is imported: its siblings may need packages that it does not.
    asked = argv[0] if argv and argv[0] in commands() else None
    for name in [asked] if asked else commands():
        module = importlib.import_module(f"ecad.workbench.{name.replace('-', '_')}")
        description = module.__doc__ or name
        sub = subparsers.add_parser(
            name,
            help=description.strip().splitlines()[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        # Errors that a user can cause say so themselves; anything else is a fault of ours and keeps its traceback.
        if not getattr(error, "user_facing", False):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
