"""`stp evaluate`: how good a model is on a collection, next to baselines."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from stp._log import logger
from stp.cli.paths import path_or_url, require_collection

if TYPE_CHECKING:
    from stp.workflows.evaluation import Evaluation

STDOUT = Path("-")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    summary = "score a model on a collection with a split, next to baselines"
    parser = commands.add_parser(
        "evaluate",
        help=summary,
        description=f"{summary}: retrieval and expression, and with --label a linear probe and "
        "clusters. Slides that the model has seen are refused. No store is changed.",
    )
    parser.add_argument(
        "collection", type=path_or_url, help="collection.parquet, a CSV file, or a folder, or a URL"
    )
    parser.add_argument(
        "--model", required=True, help="folder of a Stamp or encoder, or the name of a backbone"
    )
    parser.add_argument("--out", type=Path, required=True, help="the report: a new .html file")
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="print the result as JSON, or write it to a .json file",
    )
    parser.add_argument("--label", help="column of obs with tissue labels")
    parser.add_argument("--split", default="test", help="side of the collection to score (test)")
    parser.add_argument("--by", default="patient", help="column of the patients (patient)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    parser.add_argument(
        "--max-spots", type=int, default=5000, help="spots of a store that are used (5000)"
    )
    parser.add_argument(
        "--max-stores", type=int, default=20, help="stores of a side that are used (20)"
    )
    parser.add_argument(
        "--no-duplicates",
        action="store_true",
        help="do not look for near-duplicates, which takes time",
    )
    parser.add_argument(
        "--allow-leaks",
        action="store_true",
        help="score slides or patients that references or the model's training have, too",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="spots per batch (64)")
    parser.add_argument("--device", help="torch device; by default a GPU if there is one")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--table-key", default="table", help="name of the table (table)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate the model, write the report, and return the exit status."""
    require_collection(options.collection)
    _require_new_file(options.out, "--out", (".html", ".htm"))
    if options.json is not None and options.json != STDOUT:
        _require_new_file(options.json, "--json", (".json",))
    try:
        _evaluate(options)
    except KeyError as error:
        raise argparse.ArgumentError(None, str(error.args[0])) from error
    except (ValueError, TypeError, OSError, ImportError) as error:
        logger.debug("traceback of the error:", exc_info=True)
        raise argparse.ArgumentError(None, str(error)) from error
    return 0


def _require_new_file(file: Path, option: str, endings: tuple[str, ...]) -> None:
    """Raise ArgumentError unless a file of this kind can be written."""
    if file.suffix.lower() not in endings:
        raise argparse.ArgumentError(
            None, f"{option} {file} does not end in {' or '.join(endings)}; give such a file"
        )
    if file.is_dir():
        raise argparse.ArgumentError(None, f"{option} {file} is a folder; give a file")
    if not file.parent.is_dir():
        raise argparse.ArgumentError(None, f"there is no folder {file.parent}; make it first")


def _evaluate(options: argparse.Namespace) -> None:
    """Evaluate, write the files, and print the means or the JSON."""
    from stp._atomic import write_text_atomically
    from stp.data.collection import Collection
    from stp.workflows.evaluation import evaluate
    from stp.workflows.evaluation_options import EvaluationOptions
    from stp.workflows.evaluation_report import write_report

    settings = EvaluationOptions(
        split=options.split,
        label=options.label,
        by=options.by,
        seed=options.seed,
        max_spots=options.max_spots,
        max_stores=options.max_stores,
        find_duplicates=not options.no_duplicates,
        allow_leaks=options.allow_leaks,
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision,
        table_key=options.table_key,
    )
    evaluation = evaluate(Collection.read(options.collection), options.model, settings)
    text = json.dumps(evaluation.describe(), indent=2, ensure_ascii=False)
    write_report(evaluation, options.out)
    if options.json == STDOUT:
        print(text)
        return
    if options.json is not None:
        write_text_atomically(options.json, text)
    _print_means(evaluation)
    print(f"Wrote {options.out}; open it in a browser.")


def _print_means(evaluation: "Evaluation") -> None:
    """Print the mean scores of each method."""
    for line in evaluation.leaks.found:
        print(f"Leak: {line}")
    for part in evaluation.parts:
        print(part.title)
        if len(part.rows):
            print(part.means().to_string(index=False, float_format="{:.3f}".format))
