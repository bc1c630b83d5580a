"""Predicted expression as a table."""

from typing import TYPE_CHECKING

import numpy as np

from stp.genes.gene_choice import find_predicted, predicted_genes
from stp.genes.gene_lookup import GeneLookup, is_gene_id
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def expression(
    adata: "AnnData | SpatialData", *, key: str = keys.EXPRESSION, table_key: str = "table"
) -> "AnnData":
    """Return predicted expression as an AnnData, for plots and tools of scanpy and squidpy.

    Parameters
    ----------
    adata
        Table annotated by :func:`stp.tl.predict_expression` or :func:`stp.tl.regress_expression`.
    key
        Name of the prediction.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    AnnData of all spots and the predicted genes, with symbols as `var_names` if they are known.
    `var` has `gene_id`, the Ensembl id; `symbol`; and `is_measured`, whether `adata` has the gene
    too. Unknown ids and symbols are "". X is the prediction. Its units are in
    `uns["units"]`: log1p of counts per 10,000, unless another layer was predicted. For retrieved
    predictions, `layers["uncertainty"]` is the standard deviation over the references. `obs` and
    `obsm["spatial"]` are copied from `adata`, and with them the flags of retrieved predictions:
    `obs["stp_expression_far"]` and `obs["stp_expression_uniform"]`, or `key` with these endings.

    Raises
    ------
    KeyError
        There is no prediction of this name.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.predict_expression(sdata, reference, genes=adata.var_names[:5])
    >>> stp.get.expression(sdata).n_vars
    5
    """
    import anndata
    import pandas as pd

    adata = get_table(adata, table_key)
    call = "stp.tl.predict_expression(adata, reference)"
    X = require(adata, "obsm", key, call)
    details = require(adata, "uns", key, call)
    names, ids = predicted_genes(details)
    var_columns = {
        "gene_id": ids,
        "symbol": ["" if is_gene_id(name) else name for name in names],
        "is_measured": find_predicted(details, GeneLookup(adata)) >= 0,
    }
    table = anndata.AnnData(
        np.array(X),
        obs=adata.obs.copy(),
        var=pd.DataFrame(var_columns, index=pd.Index(names)),
        uns={"units": details["units"]},
    )
    uncertainty = adata.obsm.get(keys.uncertainty(key))
    if uncertainty is not None:
        table.layers["uncertainty"] = np.array(uncertainty)
    if keys.SPATIAL in adata.obsm:
        table.obsm[keys.SPATIAL] = adata.obsm[keys.SPATIAL].copy()
    return table
