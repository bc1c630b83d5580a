r"""Repeat the paper's protocols for whole slides, and draw its figures for small sections.

    python -m benchmarks.accuracy.paper slides --task mutations --cohort luad.toml --folder runs
    python -m benchmarks.accuracy.paper figures --tissue bulb --data ../shared/data/mob_st \
        --folder runs/figures
    python -m benchmarks.accuracy.paper ablations --folder runs/figures

`figures` draws embeddings, clusters on the tissue, and correlations of genes. Tissues are bulb and
her2st. It trains a small Stamp on the other sections, or takes the one of `--model`. `ablations`
draws the results of `benchmarks.accuracy.alignment`. Both write PNG and SVG files to the folder
`figures` in `--folder`.

`slides` prints our numbers next to those of the paper's table 5. Its tasks are mutations, ubc,
nsclc, panda and survival. A cohort is a TOML file, whose paths are relative to it:

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

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.accuracy.paper_cohort import read_cohort_file
from benchmarks.accuracy.paper_figures import draw_ablations, save_figure
from benchmarks.accuracy.paper_sections import FIGURES, TISSUES, draw_section_figures
from benchmarks.accuracy.paper_slides import TASKS, run_task
from benchmarks.accuracy.paper_tables import CHOICES, result_rows, show
from benchmarks.measure import make_parser, silence_logger, write_results
from benchmarks.render import RESULTS, read_run

ABLATIONS = RESULTS / "accuracy" / "alignment.json"
SCORES = ("recall@5", "localized", "PCC-V", "ridge PCC-V")


def main(arguments: list[str] | None = None) -> pd.DataFrame | list[str]:
    """Run one task and return its scores, or draw figures and return their names."""
    parser = make_parser(__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    slides = parts.add_parser("slides", help="models of whole slides (sections 4.4 and A.3.3)")
    slides.add_argument("--task", choices=list(TASKS), required=True)
    slides.add_argument("--cohort", type=Path, required=True, help="TOML file of the cohort")
    slides.add_argument("--folder", type=Path, required=True, help="folder of the runs")
    slides.add_argument("--seed", type=int, default=0, help="of folds, weights and intervals (0)")
    slides.add_argument("--resamples", type=int, default=2000, help="of patients (2000)")
    slides.set_defaults(run=run_slides)
    figures = parts.add_parser("figures", help="embeddings, clusters and correlated genes")
    figures.add_argument("--tissue", choices=TISSUES, required=True)
    figures.add_argument("--data", type=Path, required=True, help="folder of the sections")
    figures.add_argument(
        "--folder", type=Path, required=True, help="folder for stores, models and figures"
    )
    figures.add_argument(
        "--model", type=Path, help="folder of a Stamp that has not seen rep11 or C6"
    )
    figures.set_defaults(run=run_figures)
    ablations = parts.add_parser("ablations", help="losses, targets and encoders of alignment")
    ablations.add_argument("--folder", type=Path, required=True, help="folder for `figures`")
    ablations.add_argument(
        "--results", type=Path, default=ABLATIONS, help="JSON file of results (of alignment)"
    )
    ablations.add_argument("--columns", nargs="+", default=SCORES, help=f"scores to draw {SCORES}")
    ablations.set_defaults(run=run_ablations)
    options = parser.parse_args(arguments)
    silence_logger()
    return options.run(options)


def run_slides(options: argparse.Namespace) -> pd.DataFrame:
    """Run one task; print its tables, and return its scores and differences."""
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


def run_figures(options: argparse.Namespace) -> list[str]:
    """Draw sections of a tissue; return the names of the figures."""
    return draw_section_figures(options.tissue, options.data, options.folder, options.model)


def run_ablations(options: argparse.Namespace) -> list[str]:
    """Draw a table of results; return the name of the figure."""
    rows = read_run(options.results).values
    figure = draw_ablations(rows, options.columns)
    save_figure(figure, options.folder / FIGURES, "ablations")
    return ["ablations"]


if __name__ == "__main__":
    main()
