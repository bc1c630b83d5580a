"""Copy the index and the pages of the benchmarks to where Sphinx finds them."""

import shutil
from pathlib import Path


def write_pages(benchmarks: Path, folder: Path) -> None:
    """Copy all Markdown files; their links into docs become links of the site."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in (benchmarks / "README.md", *sorted((benchmarks / "results").rglob("*.md"))):
        copy = folder / page.relative_to(benchmarks)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(page.read_text().replace("](../../../docs/", "](/"))
