"""Explain the models of a study by genes of the tiles they decide by."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp import pl, tl
from stp._atomic import write_atomically, write_text_atomically
from stp._log import count, logger
from stp._text import readable
from stp._version import __version__
from stp.data.collection_file import csv_text
from stp.tables import keys
from stp.tables.cohort import bag_sources, features_record
from stp.tl._slide_models import open_slide_models
from stp.tl._slide_outputs import list_outputs, require_contributions
from stp.workflows.slide_config import Study
from stp.workflows.slide_expression import (
    GeneSets,
    TileStores,
    list_faults,
    predict_genes,
    read_gene_sets,
)
from stp.workflows.slide_scores import as_plain
from stp.workflows.slide_steps import (
    INTERNAL,
    digest_of,
    entry_stamp,
    features_digest,
    find_models,
    open_predictions,
)
from stp.workflows.slide_tables import GenesTable

if TYPE_CHECKING:
    from anndata import AnnData

GENES = "genes"  # folder of the results
FILE = "genes.json"
LIMIT = 0.05  # of q, in the log


def explain(study: Study, *, name: str = INTERNAL, models: Path | None = None) -> Path:
    """Explain the predictions of a cohort by genes, unless it is done.

    Genes of tiles are first predicted from measured spots, if the study names some.

    Parameters
    ----------
    study
        The study.
    name
        Name of the predictions.
    models
        Folder of slide models; None for those that made the predictions.

    Returns
    -------
    The file `genes.json`, next to tables of genes and slides and a figure.

    Raises
    ------
    FileNotFoundError
        There are no predictions of this name, or their features or models are gone.
    ValueError
        Features have changed since the prediction, tiles have no predicted genes and there are no
        references, or genes cannot be predicted or explained.
    """
    table = study.genes or GenesTable()
    cohort, record = open_predictions(study, name)
    sources = bag_sources(cohort)
    if record.get("features", "") != features_digest(cohort):
        raise ValueError(
            f"the features of the slides are not those of the predictions {name!r}; run `stp "
            "slides predict` again"
        )
    folder = Path(record["models"]) if models is None else find_models(study, models)
    slide_models = open_slide_models(folder)
    require_contributions(slide_models)  # before work that takes long
    list_outputs(slide_models[0].config, table.target)
    gene_sets = read_gene_sets(study, table)
    features = features_record(cohort)
    stores = TileStores(
        {source.slide: source.path for source in sources},
        str(features["use_rep"]),
        str(features["table_key"]),
    )
    if table.references:
        predict_genes(study, table, stores, gene_sets)
    elif faults := list_faults(table, stores, None):
        raise ValueError(faults[0])
    inputs = {
        "version": __version__,
        "predictions": record["fingerprint"],
        "models": [model.digest for model in slide_models],
        "expression": _stamp_expression(table, stores),
        "gene_sets": None if gene_sets is None else list(gene_sets.items()),
        "arguments": [table.n_permutations, table.seed, table.expression_key, table.target],
    }
    out = study.output / GENES / name
    file = out / FILE
    fingerprint = digest_of(inputs)
    if file.is_file() and json.loads(file.read_text(encoding="utf-8"))["inputs"] == fingerprint:
        logger.info(f"explain {name}: {out} is finished and skipped")
        return file
    logger.info(
        f"explain {name}: {count(len(sources), 'slide')} by {count(len(slide_models), 'model')} "
        f"of {folder}, into {out}"
    )
    _explain(study, table, cohort, folder, gene_sets)
    _write(cohort, file, {"version": __version__, "inputs": fingerprint, "models": folder})
    return file


def _explain(
    study: Study, table: GenesTable, cohort: "AnnData", models: Path, gene_sets: GeneSets | None
) -> None:
    """Explain a cohort, and log what comes first."""
    tl.explain_slides(
        cohort,
        models,
        target=table.target,
        expression_key=table.expression_key,
        gene_sets=gene_sets,
        n_permutations=table.n_permutations,
        seed=table.seed,
        device=study.fit.config.device,
    )
    entry = cohort.uns[keys.SLIDE_GENES]
    genes = entry["genes"]
    genes = genes[genes["side"] == "all"]
    unit = "gene" if gene_sets is None else "gene set"
    for (target, output), rows in genes.groupby(["target", "output"], sort=False):
        n_significant = int((rows["q"] < LIMIT).sum())
        logger.info(
            f"{target}, {output}: {n_significant:,} of {count(len(rows), unit)} have q below "
            f"{LIMIT}; the strongest is {rows['gene'].iloc[0]}"
        )


def _write(cohort: "AnnData", file: Path, record: dict[str, Any]) -> None:
    """Write tables, the figure, and last what shows that they are whole."""
    entry = cohort.uns[keys.SLIDE_GENES]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)  # until the others are whole
    _save_figure(cohort, file.with_suffix(".svg"))
    write_text_atomically(file.with_suffix(".csv"), csv_text(entry["genes"]))
    slides = entry["slides"].rename_axis(keys.SLIDE_ID).reset_index()
    write_text_atomically(file.with_name("slides.csv"), csv_text(slides))
    description = {
        **record,
        "models": readable(record["models"]),
        "share_far": entry["share_far"],
        "units": entry["units"],
        "expression_model": entry["expression_model"],
        "predictions": entry["predictions"].to_dict("records"),
        "n_slides": len(slides),
        "n_slides_used": int(slides["is_used"].sum()),
    }
    text = json.dumps(as_plain(description), indent=2, ensure_ascii=False)
    write_text_atomically(file, text)
    logger.info(f"{file.with_suffix('.svg')} shows the genes, and {file.parent} has all tables")


def _save_figure(cohort: "AnnData", file: Path) -> None:
    """Write the figure, which is the same for the same genes."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "stp"}):
        figure: Any = pl.slide_genes(cohort, show=False, return_fig=True)
        metadata = {"Date": None}
        write_atomically(
            file,
            lambda path: figure.savefig(path, format="svg", metadata=metadata, bbox_inches="tight"),
        )
        plt.close(figure)


def _stamp_expression(table: GenesTable, stores: TileStores) -> list[list[int]]:
    key = table.expression_key
    entries = (("obsm", key), ("uns", key), ("obs", keys.far(key)))
    return [
        [value for entry in entries for value in entry_stamp(path, stores.table_key, *entry)]
        for path in stores.paths.values()
    ]
