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
# Columns of the table, and the methods of the parts that they show.
COLUMNS = {
    "query by the gene": "query",
    "query by marker genes": "query",
    "query by the gene, untrained Stamp": "untrained",
    "query by marker genes, untrained Stamp": "untrained",
    "ridge on color and texture": "ridge",
    "ridge on color and texture, for the program": "ridge",
    "ridge on color and texture, for the label": "ridge, label",
    "position": "position",
    "distance from the center": "position",
    "retrieval of expression, same Stamp": "retrieval",
    "measured program in the section itself": "own counts",
}


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
        methods = run_once(folder / "her2st.json", lambda: her2st_rows(data, folder / "her2st"))
        rows += list_by_target(methods, "HER2+ C6", "Spearman")
    if "bulb" in options.parts:
        sections = options.data / "mob_st"
        methods = run_once(folder / "bulb.json", lambda: bulb_rows(sections, folder / "bulb"))
        rows += list_by_target(methods, "bulb", "AUROC")
    write_results(options.out, rows)
    return rows


def list_by_target(methods: Sequence[Row], part: str, score: str) -> list[Row]:
    """Return a row per gene or layer, with a column per method, and further rows of the methods."""
    rows: dict[str, Row] = {}
    for method in methods:
        column = COLUMNS[method["method"]]
        others = {name: method[name] for name in method if name not in ("part", "method", score)}
        for name, value in (method[score] | others).items():
            unit = score if isinstance(value, float) else "genes"
            row = rows.setdefault(name, {"measured": f"{part}, {name}", "unit": unit})
            row[column] = value
    return list(rows.values())


if __name__ == "__main__":
    main()
