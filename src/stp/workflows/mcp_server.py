"""The server for agents: tools over standard input and output, one call at a time."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import ValidationError

from stp._log import logger
from stp._text import text_of
from stp._version import __version__
from stp.data.column_values import nearest

INSTRUCTIONS = """\
Slides of spatial transcriptomics and pathology in the folder {folder}: embed their spots, and
predict patients from slides. Call `list` first, then `check` before `predict`, `score` and `draw`.
Paths are relative to the folder. Training and tiling are commands for people: `stp slides`."""
READS_ONLY = ("list", "describe_store", "describe_cohort", "check")


class Server(MCPServer):
    """A server whose errors are one line, and which refuses arguments that a tool does not have.

    Parameters
    ----------
    folder
        The folder of the tools.
    """

    def __init__(self, folder: Path) -> None:
        calls = _list_tools(folder)
        tools = [
            Tool.from_function(
                call,
                name=name,
                description=_describe(call),
                annotations=ToolAnnotations(
                    read_only_hint=name in READS_ONLY,
                    destructive_hint=False,
                    idempotent_hint=True,
                    open_world_hint=False,
                ),
            )
            for name, call in calls.items()
        ]
        self._arguments = {tool.name: list(tool.parameters["properties"]) for tool in tools}
        super().__init__(
            "stp",
            instructions=INSTRUCTIONS.format(folder=folder),
            version=__version__,
            tools=tools,
            log_level="WARNING",
        )

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; every error is one line without a traceback."""
        for argument in arguments:
            names = self._arguments.get(name, [argument])
            if argument not in names:
                hint = nearest(argument, names) or f"; it has {', '.join(names) or 'none'}"
                raise ToolError(f"{name} has no argument {argument!r}{hint}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            raise ToolError(_one_line(error)) from None


def serve(folder: Path) -> None:
    """Answer the calls of an agent until it closes the standard input.

    Results go to the standard output, and the log to the standard error.

    Parameters
    ----------
    folder
        The folder that no tool leaves.
    """
    os.environ["MPLBACKEND"] = "Agg"  # figures are files
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded
    logger.info(f"stp mcp: {folder}")
    Server(folder.resolve()).run("stdio")


def _list_tools(folder: Path) -> dict[str, Callable[..., dict[str, Any]]]:
    """Return the tools by their names."""
    from stp.workflows.mcp_tools import Tools

    tools = Tools(folder)
    calls: dict[str, Callable[..., dict[str, Any]]] = {
        "list": tools.list_folder,
        "describe_store": tools.describe_store,
        "describe_cohort": tools.describe_cohort,
        "check": tools.check,
        "embed": tools.embed,
        "predict": tools.predict,
        "score": tools.score,
        "draw": tools.draw,
        "explain": tools.explain,
    }
    lock = threading.Lock()
    return {name: _in_turn(call, lock) for name, call in calls.items()}


def _in_turn(
    call: Callable[..., dict[str, Any]], lock: threading.Lock
) -> Callable[..., dict[str, Any]]:
    """Return a tool that waits for the others, adds its messages, and has errors of one line."""

    @wraps(call)
    def run(**arguments: Any) -> dict[str, Any]:
        with lock, _collect_messages() as messages:
            try:
                result = call(**arguments)
            except Exception as error:
                logger.debug("traceback of the error:", exc_info=True)
                raise ToolError(text_of(error) or type(error).__name__) from error
        return {**result, "messages": messages}

    return run


@contextmanager
def _collect_messages() -> Iterator[list[str]]:
    """Collect what a command would log and warn of, which also goes to the standard error."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    collector = Collector(logging.INFO)
    logger.addHandler(collector)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield messages
    finally:
        logger.removeHandler(collector)
    for warning in caught:
        if warning.category is UserWarning:
            logger.warning(f"Warning: {warning.message}")
            messages.append(f"Warning: {warning.message}")


def _describe(call: Callable[..., Any]) -> str:
    return " ".join((call.__doc__ or "").split())


def _one_line(error: ToolError) -> str:
    """Return an error as one line, without what the package puts before it."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in cause.errors()]
        return f"wrong arguments: {'; '.join(faults)}"
    return text_of(cause if isinstance(cause, ToolError) else error)
