"""Do queries by genes find where a program is expressed, on slides that show no counts?

    python -m benchmarks.accuracy.queries --data ../shared/data --folder runs/queries

Three parts: explanations of planted programs on synthetic slides, single genes in a HER2+ section,
and the layers of the mouse olfactory bulb. Parts that the folder has are not run again.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy.queries_bulb import bulb_rows
from benchmarks.accuracy.queries_her2st import her2st_rows
from benchmarks.measure import Row, make_parser, run_once, silence_logger, write_results

PARTS = ("planted", "her2st", "bulb")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the parts, and write and return their rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with her2st and mob_st")
    parser.add_argument("--folder", type=Path, required=True, help="folder for stores and models")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args(arguments)
    silence_logger()
    folder = options.folder
    rows: list[Row] = []
    if "planted" in options.parts:
        from benchmarks.accuracy.queries_planted import planted_rows

        rows += planted_rows(folder)
    if "her2st" in options.parts:
        data = options.data / "her2st"
        rows += run_once(folder / "her2st.json", lambda: her2st_rows(data, folder / "her2st"))
    if "bulb" in options.parts:
        sections = options.data / "mob_st"
        rows += run_once(folder / "bulb.json", lambda: bulb_rows(sections, folder / "bulb"))
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
