"""Fit the regression head: expression from frozen features (paper, section A.3.3)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stp.models.device import build_with_seed
from stp.models.head import ExpressionHead, ExpressionHeadConfig
from stp.tables import keys
from stp.tables.profiles import choose_genes, one_unit, profiles
from stp.tables.provenance import model_of, require_one_model
from stp.tables.references import blocks, open_references
from stp.train.config import RegressionConfig
from stp.train.frozen import SpotArrays, train_on
from stp.train.tasks import ExpressionRegression


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

    :func:`stp.tl.apply_expression_head` writes what they predict.

    Parameters
    ----------
    reference
        Spots with features and raw counts: a table, a SpatialData, the path of one on disk, or several.
    output_dir
        Run directory, as :func:`stp.train.align` makes it.
    genes
        Genes to predict, which all tables measure; by default those that `var["highly_variable"]` of any reference
        marks.
    config
        Schedule and seed.
    validation
        Spots of other slides: the epoch of the lowest error is kept, and training stops when it no longer falls.
        Without them the last epoch is kept.
    use_rep
        Features in `obsm`.
    layer
        Layer of the tables. Raw counts, in X by default, become log1p of counts per 10,000; a layer that holds
        anything else is predicted as it is.
    table_key
        Table of a SpatialData.
    resume
        Go on where a stopped run left off.

    Returns
    -------
    The head, on the CPU.

    Raises
    ------
    KeyError
        Features or a gene are missing, or no gene is marked as highly variable and none is asked for.
    ValueError
        Features are of different models, the tables share no gene, or their counts are not raw.

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
    tables = open_references(reference, table_key)
    held_out = open_references(validation, table_key, allow_none=True)
    named = {**tables, **{f"validation: {label}": table for label, table in held_out.items()}}
    if lacking := [label for label, table in named.items() if use_rep not in table.obsm]:
        raise KeyError(
            f"obsm[{use_rep!r}] of {', '.join(lacking)} is missing; run {keys.maker_call(use_rep)} first"
        )
    made_by = require_one_model({label: model_of(table, use_rep) for label, table in named.items()})
    chosen, units = choose_genes(tables, genes), one_unit(named, layer)
    choose_genes(named, chosen)
    dataset = _spots(tables, use_rep, layer, chosen)
    width = dataset.arrays["features"].shape[1]
    sizes = ExpressionHeadConfig(
        width, tuple(chosen), units, made_by["digest"] if made_by else None
    )
    head = build_with_seed(config.seed, lambda: ExpressionHead(sizes))
    train_on(
        dataset,
        _spots(held_out, use_rep, layer, chosen) if held_out else None,
        output_dir,
        make_task=lambda world: ExpressionRegression(head),
        score=_error,
        model=head,
        config=config,
        about={
            "stage": "fit_expression_head",
            "genes": list(chosen),
            "units": units,
            "use_rep": use_rep,
        },
        resume=resume,
    )
    return ExpressionHead.from_pretrained(output_dir)


def _spots(
    tables: dict[str, Any], use_rep: str, layer: str | None, genes: np.ndarray
) -> SpotArrays:
    features = [np.concatenate(list(blocks([table.obsm[use_rep]]))) for table in tables.values()]
    expression = [np.concatenate(list(profiles(table, layer, genes))) for table in tables.values()]
    return SpotArrays(list(tables), {"features": features, "expression": expression})


def _error(task: ExpressionRegression, dataset: SpotArrays) -> dict[str, float]:
    """Return the mean squared error over all spots; its negative is the score."""
    device, total, n = next(task.parameters()).device, 0.0, 0
    for table in range(len(dataset.stores)):
        for batch in dataset.of(table):
            mean = task({name: values.to(device) for name, values in batch.items()})["mse"].item()
            total, n = total + mean * len(batch["features"]), n + len(batch["features"])
    return {"mse": total / n, "score": -total / n}
