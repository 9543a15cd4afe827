"""Start the explorer: `python app.py`. On a Hugging Face Space this file is the entry point."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing the page does leaves this machine


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; host and port follow Gradio's own variables, which a Space sets."""
    parser = argparse.ArgumentParser(
        description="Explore caching schedules of a diffusion transformer in the browser."
    )
    parser.add_argument(
        "--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen on"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        help="port to listen on",
    )
    parser.add_argument(
        "--model", default="storybook", help="a model's name, or the folder of a saved pipeline"
    )
    parser.add_argument("--run", help="name or file of the run to show first; without it the shipped one")
    parser.add_argument(
        "--data-dir", help="where runs and renders are kept; without it $ECAD_DATA_DIR or the user's own"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; 2 if what was asked for cannot be."""
    args = options(argv)
    from app.page import create_app, launch_options
    from app.services.build import build

    try:
        services = build(args.model, args.run, args.data_dir)
    except Exception as error:
        if not getattr(error, "user_facing", False):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        create_app(services).queue(default_concurrency_limit=8).launch(
            server_name=args.host, server_port=args.port, share=False, **launch_options()
        )
    finally:
        services.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
