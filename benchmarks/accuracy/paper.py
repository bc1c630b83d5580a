"""Repeat the paper's protocols for whole slides, with our numbers next to those of its table 5.

    python -m benchmarks.accuracy.paper slides --task mutations --cohort luad.toml --folder runs

Tasks are mutations, ubc, nsclc, panda and survival. A cohort is a TOML file, whose paths are
relative to it:

    slides = "slides.csv"        # patient, slide
    clinical = "clinical.csv"    # patient, and the labels; leave it out if slides.csv has them
    patient_key = "patient"
    slide_key = "slide"

    [columns]                    # of the task
    mutations = ["EGFR", "KRAS", "STK11", "TP53"]
    positive = "mutated"         # how these columns call a mutation
    label = "subtype"            # of ubc, nsclc and panda
    time = "os_days"             # of survival
    event = "os_event"

    [features.UNI]               # one set of features or several, each in a folder
    root = "features/uni"
    use_rep = "X_features"
    [features.STAMP]
    root = "features/stamp"

The first set of features is the baseline of all others. `[fit]` may change fields of
`stp.train.SlideConfig`, such as `max_tiles`; the result names what it changes. A run that was
stopped goes on with the same command.
"""

from pathlib import Path

import pandas as pd

from benchmarks.accuracy.paper_cohort import read_cohort_file
from benchmarks.accuracy.paper_slides import TASKS, run_task
from benchmarks.accuracy.paper_tables import CHOICES, result_rows, show
from benchmarks.measure import make_parser, silence_logger, write_results


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Run one task; print its tables, and return its scores and differences."""
    parser = make_parser(__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    slides = parts.add_parser("slides", help="models of whole slides (sections 4.4 and A.3.3)")
    slides.add_argument("--task", choices=list(TASKS), required=True)
    slides.add_argument("--cohort", type=Path, required=True, help="TOML file of the cohort")
    slides.add_argument("--folder", type=Path, required=True, help="folder of the runs")
    slides.add_argument("--seed", type=int, default=0, help="of folds, weights and intervals (0)")
    slides.add_argument("--resamples", type=int, default=2000, help="of patients (2000)")
    options = parser.parse_args(arguments)
    silence_logger()
    cohort = read_cohort_file(options.cohort, options.task)
    table = run_task(
        options.task,
        cohort,
        options.folder,
        seed=options.seed,
        n_resamples=options.resamples,
    )
    write_results(options.out, result_rows(table))
    print(show(options.task, table))
    print("\nThe paper does not state the following, so these are our choices:")
    print("\n".join(f"- {choice}" for choice in CHOICES))
    if cohort.fit:
        print(f"- changed by the cohort file: {cohort.fit}")
    return table


if __name__ == "__main__":
    main()
