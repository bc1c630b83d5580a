"""`stp mcp`: tools for agents, over standard input and output."""

import argparse
from pathlib import Path

from stp.cli.paths import require_folder


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    summary = "let an agent describe, embed, predict, score and draw what is in one folder"
    parser = commands.add_parser(
        "mcp",
        help=summary,
        description=f"{summary}. A client of the Model Context Protocol starts this command.",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of stores, cohorts and models; nothing outside it is read or written",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer calls until the client closes the standard input."""
    from stp._extras import import_extra

    require_folder(options.root, "the folder of stores, cohorts and models")
    try:
        import_extra("mcp")
    except ImportError as error:
        raise argparse.ArgumentError(None, str(error)) from error
    from stp.workflows.mcp_server import serve

    serve(options.root)
    return 0
