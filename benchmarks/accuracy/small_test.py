r"""Do the settings for few slides hold on a section that their search never read?

    python -m benchmarks.accuracy.small_test --data ../shared/data/her2st --folder runs/small_test

HER2+ sections C2 to C4 train, and C6 is scored, with three seeds. All are serial sections of one
tumor. Runs that are done are not repeated.
"""

from functools import partial
from pathlib import Path

import pandas as pd
import torch

from benchmarks.accuracy.sections import TEST
from benchmarks.accuracy.small_settings import her2st_task, run, score_baselines
from benchmarks.measure import Row, make_parser, run_once, silence_logger, write_results

SEEDS = (0, 1, 2)
METHODS = {"chosen": "Stamp, small settings", "start": "Stamp, start of the search"}
METRICS = ("recall@5", "PCC-V", "ridge PCC-V")


def main(arguments: list[str] | None = None) -> list[Row]:
    """Train and score what is not done yet; write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of h5ad and jpg files")
    parser.add_argument("--folder", type=Path, required=True, help="folder for stores and models")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    silence_logger()
    torch.set_num_threads(1)
    folder = options.folder
    task = her2st_task(options.data, folder, TEST)
    rows: list[Row] = []
    for seed in options.seeds:
        for variant in METHODS:
            place = f"{variant} {seed}"
            work = partial(run, task, variant, seed, folder / "models" / place)
            rows += run_once(folder / "scores" / f"{place}.json", work)
    rows += run_once(folder / "scores" / "baselines.json", partial(score_baselines, task))
    result = list_rows(pd.DataFrame(rows))
    write_results(options.out, result)
    return result


def list_rows(scores: pd.DataFrame) -> list[Row]:
    """Return a row per method: the mean over seeds, and the value of each seed."""
    rows = []
    for method, runs in scores.groupby("method", sort=False):
        row: Row = {"method": METHODS.get(method, method)}
        for name in METRICS:
            values = runs.set_index("seed")[name].dropna()
            if len(values) > 1:
                by_seed = {f"seed {seed}": float(value) for seed, value in values.items()}
                row[name] = {"mean": round(float(values.mean()), 3), **by_seed}
            elif len(values):
                row[name] = float(values.iloc[0])
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
