"""Fit the regression head: expression from frozen features (paper, section A.3.3)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stp.genes.gene_choice import GeneChoice, choose_genes
from stp.models.device import build_with_seed
from stp.models.head import ExpressionHead, ExpressionHeadConfig
from stp.tables import keys
from stp.tables.embeddings import read_blocks
from stp.tables.profiles import one_unit, profiles
from stp.tables.provenance import model_of, require_one_model
from stp.tables.references import open_references
from stp.train.frozen import SpotArrays, train_on
from stp.train.frozen_config import RegressionConfig
from stp.train.store_lists import TRAIN, StoreLists
from stp.train.tasks import ExpressionRegression

if TYPE_CHECKING:
    from anndata import AnnData


def fit_expression_head(
    reference: Any,
    output_dir: str | Path,
    *,
    genes: str | Sequence[str] | None = None,
    config: RegressionConfig = RegressionConfig(),
    validation: Any = (),
    use_rep: str = keys.IMAGES,
    layer: str | None = None,
    table_key: str = "table",
    resume: bool = True,
) -> ExpressionHead:
    """Fit three linear layers that predict expression from frozen features (paper, A.3.3).

    Call :func:`stp.tl.apply_expression_head` to write the predictions of the head.

    Parameters
    ----------
    reference
        Spots with features and counts: a table, a SpatialData, the path of one on disk, several of
        these, or a collection of :func:`stp.io.read_collection`.
    output_dir
        Run directory, which has the files that :func:`stp.train.align` writes.
    genes
        Symbols or Ensembl ids of the genes to predict, which all tables must measure. By default
        those that `var["highly_variable"]` of any table marks.
    config
        Settings of the training.
    validation
        Spots of other slides. The epoch with the lowest error is kept, and training stops when the
        error no longer falls. Without them the last epoch is kept.
    use_rep
        Name of the features in `obsm`.
    layer
        Layer with the expression to predict; by default `X`. Raw counts become log1p of counts per
        10,000, and any other layer is predicted as it is.
    table_key
        Name of the table in a SpatialData.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.

    Returns
    -------
    The head, on the CPU.

    Raises
    ------
    KeyError
        If features or a gene are missing, or if `genes` is not passed and no gene is marked as
        highly variable.
    ValueError
        If features come from different models, if the tables share no gene, or if `X` has no raw
        counts.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> config = stp.train.RegressionConfig(epochs=1, batch_size=8)
    >>> genes = list(adata.var_names[:3])
    >>> head = stp.train.fit_expression_head(
    ...     sdata, "runs/head", genes=genes, config=config, resume=False
    ... )
    >>> head.config.width
    128
    """
    lists = StoreLists.choose(reference, validation)
    training_tables = open_references(lists.stores, table_key)
    validation_tables = open_references(lists.validation, table_key, allow_none=True)
    lists.check_patients(training_tables, validation_tables)
    tables = dict(training_tables)
    for label, table in validation_tables.items():
        tables[f"validation: {label}"] = table
    lacking = [label for label, table in tables.items() if use_rep not in table.obsm]
    if lacking:
        raise KeyError(
            f"obsm[{use_rep!r}] of {', '.join(lacking)} is missing; "
            f"run {keys.maker_call(use_rep)} first"
        )
    record = require_one_model({label: model_of(table, use_rep) for label, table in tables.items()})
    gene_names = choose_genes(training_tables, genes).names
    units = one_unit(tables, layer)
    choice = choose_genes(tables, gene_names)  # validation tables must measure them, too
    dataset = _read_spots(training_tables, use_rep, layer, choice)
    validation_set = None
    if validation_tables:
        others = {label: table for label, table in tables.items() if label not in training_tables}
        validation_set = _read_spots(others, use_rep, layer, choice)
    head_config = ExpressionHeadConfig(
        width=dataset.arrays["features"].shape[1],
        genes=tuple(gene_names),
        units=units,
        features_of=record["digest"] if record else None,
    )
    head = build_with_seed(config.seed, lambda: ExpressionHead(head_config))
    train_on(
        dataset,
        validation_set,
        output_dir,
        make_task=lambda processes: ExpressionRegression(head),
        score=_error,
        model=head,
        config=config,
        inputs={
            "stage": "fit_expression_head",
            "genes": list(gene_names),
            "units": units,
            "use_rep": use_rep,
            **lists.record(),
        },
        resume=resume,
        origin=lists.origin(TRAIN),
    )
    return ExpressionHead.from_pretrained(output_dir)


def _read_spots(
    tables: dict[str, "AnnData"], use_rep: str, layer: str | None, genes: GeneChoice
) -> SpotArrays:
    """Read the features and the expression of these genes."""
    features = [
        np.concatenate(list(read_blocks(table.obsm[use_rep], f"obsm[{use_rep!r}] of {label}")))
        for label, table in tables.items()
    ]
    expression = [
        np.concatenate(list(profiles(table, layer, genes.columns[label])))
        for label, table in tables.items()
    ]
    return SpotArrays(list(tables), {"features": features, "expression": expression})


@torch.inference_mode()
def _error(task: ExpressionRegression, dataset: SpotArrays) -> dict[str, float]:
    """Return the mean squared error over all spots; its negative is the score."""
    device = next(task.parameters()).device
    total = 0.0
    n_spots = 0
    for table in range(len(dataset.names)):
        for batch in dataset.batches_of(table):
            on_device = {name: values.to(device) for name, values in batch.items()}
            n = len(batch["features"])
            total += task(on_device)["mse"].item() * n
            n_spots += n
    return {"mse": total / n_spots, "score": -total / n_spots}
