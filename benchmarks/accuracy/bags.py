"""How good are slide models on bags whose answer is known?

    python -m benchmarks.accuracy.bags --data ../shared/data --folder runs/bags

Four parts: classic bags with published results, survival from RNA as bags of one, shuffled labels,
and a signal in one percent of the tiles. Parts that the folder has are not run again.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy.bags_classic import classic_rows
from benchmarks.accuracy.bags_survival import survival_rows
from benchmarks.accuracy.bags_synthetic import planted_rows, shuffled_rows
from benchmarks.measure import Row, make_parser, silence_logger, write_results

PARTS = ("classic", "survival", "shuffled", "planted")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the parts, and write and return their rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with mil and cohorts")
    parser.add_argument("--folder", type=Path, required=True, help="folder of bags and runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--bags", type=int, default=200, help="number of planted bags")
    parser.add_argument("--tiles", type=int, default=10_000, help="tiles of a planted bag")
    parser.add_argument("--width", type=int, default=1024, help="features of a planted tile")
    options = parser.parse_args(arguments)
    silence_logger()
    rows: list[Row] = []
    if "classic" in options.parts:
        rows += classic_rows(options.data / "mil", options.folder)
    if "survival" in options.parts:
        rows += survival_rows(options.data / "cohorts" / "tcga_blca", options.folder)
    if "shuffled" in options.parts:
        rows += shuffled_rows(options.folder)
    if "planted" in options.parts:
        rows += planted_rows(
            options.folder, n_bags=options.bags, n_tiles=options.tiles, width=options.width
        )
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
