"""Write the tables of the result pages, and the index, from the JSON files next to the pages.

    python -m benchmarks.render

A page names its JSON files in a comment, `<!-- results: a.json b.json -->`, and the row and column
that the index shows, `<!-- headline: a.json | name of the row | column -->`. Text between
`<!-- runs -->`, `<!-- table -->` or `<!-- index -->` and the next `<!-- end -->` is replaced; all
other text is written by hand. A page without a run yet has `<!-- results: none -->` and a comment
`<!-- command: python -m … -->`.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
INDEX = FOLDER / "README.md"
RESULTS = FOLDER / "results"
UNIFORM = 2  # so many floats must a column have before its decimals are made equal
NOT_RUN = "not run yet"
MIXED = ("result",)  # columns whose rows have different units


class Run(NamedTuple):
    """One run of a benchmark: how it was made, and the rows that it gave."""

    command: str
    commit: str
    machine: str
    date: str
    values: list[dict[str, Any]]


def read_run(file: Path) -> Run:
    """Read a JSON file that a benchmark wrote."""
    return Run(**json.loads(file.read_text()))


def runs_of(page: Path, text: str) -> dict[str, Run]:
    """Return the runs that a page names, by the name of their file."""
    names = _comment(text, "results", page).split()
    if names == ["none"]:
        return {}
    return {name: read_run(page.parent / name) for name in names}


def render_page(page: Path) -> str:
    """Return a page with its runs and its table as the JSON files have them."""
    text = page.read_text()
    runs = list(runs_of(page, text).values())
    text = _fill(text, "runs", render_runs(runs))
    return _fill(text, "table", render_table(runs))


def render_index() -> str:
    """Return the index with a row for each page."""
    columns = ["question", "result", "goal", "met", "command", "page"]
    pages = sorted(RESULTS.glob("*/*.md"))
    rows = [_index_row(page) for page in pages]
    return _fill(INDEX.read_text(), "index", _markdown(columns, rows))


def render_runs(runs: Sequence[Run]) -> str:
    """Return a numbered list of commands, commits, dates and machines."""
    if not runs:
        return NOT_RUN
    items = []
    for number, run in enumerate(runs, 1):
        items.append(f"{number}. `{run.command}`")
        items.append(f"   Commit {run.commit}, {run.date}. {run.machine}.")
    return "\n".join(items)


def render_table(runs: Sequence[Run]) -> str:
    """Return one table of the rows of all runs; a number distinguishes several runs."""
    if not runs:
        return NOT_RUN
    rows = []
    for number, run in enumerate(runs, 1):
        for values in run.values:
            rows.append({"run": number, **values} if len(runs) > 1 else values)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for last in ("goal", "met"):
        if last in columns:
            columns.remove(last)
            columns.append(last)
    decimals = {name: _decimals([row.get(name) for row in rows]) for name in columns}
    for name in MIXED:
        decimals[name] = None
    cells = [[_cell(row.get(name), decimals[name]) for name in columns] for row in rows]
    return _markdown(columns, cells)


def _index_row(page: Path) -> list[str]:
    text = page.read_text()
    runs = runs_of(page, text)
    question = text.partition("## Question\n")[2].strip().partition("\n")[0]
    link = f"[{page.stem}]({page.relative_to(INDEX.parent)})"
    if not runs:
        return [question, NOT_RUN, "", "", f"`{_comment(text, 'command', page)}`", link]
    file, row_name, column = (part.strip() for part in _comment(text, "headline", page).split("|"))
    run = runs[file]
    rows = [row for row in run.values if row_name in row.values()]
    if len(rows) != 1:
        raise ValueError(f"{page}: {len(rows)} rows of {file} are named {row_name!r}; name one")
    row = rows[0]
    unit = row.get("unit", column)
    result = row[column]["mean"] if isinstance(row[column], dict) else row[column]
    return [
        question,
        f"{_cell(result, None)} {unit} ({row_name})",
        row.get("goal", ""),
        _cell(row.get("met"), None),
        f"`python -m {_module(run.command)}`" if "-m" in run.command else f"`{run.command}`",
        link,
    ]


def _module(command: str) -> str:
    return re.search(r"-m (\S+)", command)[1]


def _comment(text: str, name: str, page: Path) -> str:
    match = re.search(rf"<!-- {name}: (.*?) -->", text)
    if match is None:
        raise ValueError(f"{page} has no comment <!-- {name}: … -->; add one")
    return match[1]


def _fill(text: str, name: str, content: str) -> str:
    """Replace what stands between a marker and the next end marker."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    filled, n_replaced = pattern.subn(lambda m: f"{m[1]}\n{content}\n\n{m[2]}", text)
    if n_replaced != 1:
        raise ValueError(f"{n_replaced} regions <!-- {name} --> … <!-- end -->; a page has one")
    return filled


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any, decimals: int | None) -> str:
    """Return a value as text.

    A list is a range. A dictionary is a mean, then its range or the values behind it.
    """
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case dict():
            return _cell_of_mean(value, lambda number: _cell(number, decimals))
        case list():
            low, high = (_cell(edge, decimals) for edge in value)
            return low if low == high else f"{low} to {high}"
        case float() if decimals is not None:
            return f"{value:,.{decimals}f}"
        case int() | float():
            return f"{value:,}"
    return str(value)


def _cell_of_mean(value: dict[str, Any], show: Callable[[Any], str]) -> str:
    behind = []
    for name, part in value.items():
        if name != "mean":
            behind.append(show(part) if name == "range" else f"{name} {show(part)}")
    return f"{show(value['mean'])} ({', '.join(behind)})"


def _decimals(values: Sequence[Any]) -> int | None:
    """Return the decimals of the most precise float of a column; None if few are floats."""
    floats = []
    for value in values:
        floats += _floats(value)
    if len(floats) < UNIFORM:
        return None
    return max(len(f"{number!r}".partition(".")[2]) for number in floats)


def _floats(value: Any) -> list[float]:
    match value:
        case float():
            return [value]
        case list():
            return [number for part in value for number in _floats(part)]
        case dict():
            return [number for part in value.values() for number in _floats(part)]
    return []


def main() -> None:
    """Write all pages and the index."""
    for page in sorted(RESULTS.glob("*/*.md")):
        page.write_text(render_page(page))
    INDEX.write_text(render_index())


if __name__ == "__main__":
    main()
