"""`stp slides`: predict patients from their slides, all described by one TOML file."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from stp._log import count, logger
from stp.cli.paths import require_file, require_folder

if TYPE_CHECKING:
    from stp.workflows.slide_config import Study

FILE = "a TOML file of a study; `stp slides init` writes one"
STEPS = {
    "init": "write a commented file to start from",
    "check": "list everything that would fail; status 1 if there is anything",
    "show": "print all settings with absolute paths",
    "tile": "lay tiles on the slides and embed them; also under torchrun --no-python",
    "cross-validate": "train a model for each fold; also under torchrun --no-python",
    "fit": "train a model on all patients; also under torchrun --no-python",
    "predict": "predict patients by models that have never seen them",
    "score": "score all predictions, and write tables, figures and a report",
    "draw": "draw where each prediction comes from, as PNG and as GeoJSON for QuPath",
    "explain": "find the genes behind the predictions, as tables and a figure",
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command, its steps and their options."""
    summary = "predict patients from their slides: one file, one step at a time"
    parser = commands.add_parser(
        "slides", help=summary, description=f"{summary}. A step that was stopped continues."
    )
    steps = parser.add_subparsers(dest="step", required=True)
    for step, text in STEPS.items():
        step_parser = steps.add_parser(step, help=text, description=f"{text}.")
        step_parser.set_defaults(run=run)
        if step == "init":
            step_parser.add_argument(
                "file", type=Path, nargs="?", default=Path("cohort.toml"), help="the new file"
            )
            continue
        step_parser.add_argument("file", type=Path, help=FILE)
        if step in ("check", "predict"):
            _add_cohort_options(step_parser)
        if step in ("predict", "draw", "explain"):
            step_parser.add_argument("--name", help="name of the predictions")
        if step in ("draw", "explain"):
            text = "one model, if several predicted" if step == "draw" else "other slide models"
            step_parser.add_argument("--models", type=Path, metavar="DIR", help=text)
        if step == "draw":
            step_parser.add_argument("--slide", action="append", default=[], help="a slide to draw")
            step_parser.add_argument(
                "--um-per-px", type=float, help="of the slides, if their features lack it"
            )
        if step in ("check", "score"):
            step_parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_cohort_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name another cohort."""
    parser.add_argument(
        "--clinical",
        type=Path,
        metavar="TABLE",
        help="table of other patients, which may have their slides, too",
    )
    parser.add_argument("--slides", type=Path, metavar="TABLE", help="table of other slides")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of their features")
    parser.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="results of a study, a cross-validation or a model; by default those of this study",
    )


def run(options: argparse.Namespace) -> int:
    """Run a step and return the exit status."""
    if options.step == "init":
        return _init(options.file)
    require_file(options.file, FILE)
    for table in (getattr(options, "clinical", None), getattr(options, "slides", None)):
        if table is not None:
            require_file(table, "a table as .csv, .tsv, .parquet or .xlsx")
    for folder in (getattr(options, "root", None), getattr(options, "models", None)):
        if folder is not None:
            require_folder(folder, "its path")
    try:
        if options.step == "check":
            return _check(options)
        return _run_step(options)
    except KeyError as error:
        raise argparse.ArgumentError(None, str(error.args[0])) from error
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        logger.debug("traceback of the error:", exc_info=True)
        raise argparse.ArgumentError(None, str(error)) from error


def _init(file: Path) -> int:
    """Write the template."""
    from stp.workflows.slide_template import TEMPLATE

    if file.exists():
        raise argparse.ArgumentError(None, f"{file} exists; give the path of a new file")
    if not file.parent.is_dir():
        raise argparse.ArgumentError(None, f"there is no folder {file.parent}; make it first")
    file.write_text(TEMPLATE, encoding="utf-8")
    print(f"Wrote {file}: edit it, then run `stp slides check {file}`")
    return 0


def _run_step(options: argparse.Namespace) -> int:
    """Run a step that reads the file of a study."""
    from stp.workflows.slide_config import read_study

    study = read_study(options.file)
    if options.step == "show":
        from stp.workflows.slide_template import describe_study

        print(describe_study(study), end="")
        return 0
    if options.step == "score":
        return _score(study, options)
    if options.step == "draw":
        return _draw(study, options)
    if options.step == "explain":
        return _explain(study, options)
    from stp.workflows import slide_steps

    if options.step == "tile":
        return _report_tiles(slide_steps.tile(study))
    if options.step == "cross-validate":
        slide_steps.cross_validate(study)
    elif options.step == "fit":
        slide_steps.fit(study)
    else:
        from stp.workflows.slide_cohorts import other_cohort

        source = other_cohort(
            study, slides=options.slides, clinical=options.clinical, root=options.root
        )
        name = slide_steps.name_predictions(
            options.file,
            options.name,
            table=options.clinical or options.slides,
            models=options.models,
        )
        models = slide_steps.find_models(study, options.models)
        slide_steps.predict(study, source, models, name)
    return 0


def _report_tiles(rows) -> int:
    """Print the slides that failed, and return the exit status."""
    failed = rows[rows["status"] == "failed"]
    if not len(failed):
        return 0
    print(f"{count(len(failed), 'slide')} failed:")
    for row in failed.itertuples():
        print(f"  {row.name}: {row.error}")
    return 1


def _check(options: argparse.Namespace) -> int:
    """Print everything that would fail, and return 1 if there is anything."""
    from stp.workflows.slide_check import check_file, describe_findings

    findings = check_file(
        options.file,
        slides=options.slides,
        clinical=options.clinical,
        root=options.root,
        models=options.models,
    )
    n_faults = sum(finding.is_fault for finding in findings)
    if options.json:
        print(json.dumps(describe_findings(findings), indent=2))
        return 1 if n_faults else 0
    for finding in findings:
        print(f"{'no' if finding.is_fault else '--'}  {finding.part}: {finding.text}")
    print(count(n_faults, "fault") if n_faults else "everything fits")
    return 1 if n_faults else 0


def _score(study: "Study", options: argparse.Namespace) -> int:
    """Score all predictions of a study."""
    from stp.workflows.slide_scores import score

    file = score(study)
    if options.json:
        print(file.read_text(encoding="utf-8"))
    return 0


def _draw(study: "Study", options: argparse.Namespace) -> int:
    """Draw slides; return 1 if one of them failed."""
    from stp.workflows.slide_maps import draw
    from stp.workflows.slide_steps import name_predictions

    failures = draw(
        study,
        name=name_predictions(options.file, options.name, table=None, models=None),
        slides=options.slide,
        models=options.models,
        um_per_px=options.um_per_px,
    )
    if failures:
        print(f"{count(len(failures), 'slide')} failed:")
    for name, text in failures.items():
        print(f"  {name}: {text}")
    return 1 if failures else 0


def _explain(study: "Study", options: argparse.Namespace) -> int:
    """Find the genes behind predictions."""
    from stp.workflows.slide_genes import explain
    from stp.workflows.slide_steps import name_predictions

    name = name_predictions(options.file, options.name, table=None, models=None)
    explain(study, name=name, models=options.models)
    return 0
