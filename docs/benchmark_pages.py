"""Copy the index and the pages of the benchmarks to where Sphinx finds them."""

import shutil
from pathlib import Path


def write_pages(benchmarks: Path, folder: Path) -> None:
    """Copy all Markdown files; their links into docs become links of the site.

    The index loses its column of commands, because each page has its own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for page in (benchmarks / "README.md", *sorted((benchmarks / "results").rglob("*.md"))):
        copy = folder / page.relative_to(benchmarks)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text().replace("](../../../docs/", "](/")
        if page.parent == benchmarks:
            text = without_column(text, "command")
        copy.write_text(text)


def without_column(text: str, name: str) -> str:
    """Return a page without one column of its table."""
    lines = text.splitlines()
    header = next(line for line in lines if f"| {name} |" in line)
    column = cells_of(header).index(name)
    for number, line in enumerate(lines):
        if line.startswith("|"):
            cells = cells_of(line)
            del cells[column]
            lines[number] = "| " + " | ".join(cells) + " |"
    return "\n".join(lines) + "\n"


def cells_of(line: str) -> list[str]:
    """Return the cells of a row of a table."""
    return line.removeprefix("| ").removesuffix(" |").split(" | ")
