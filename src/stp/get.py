"""Results of verbs as new tables."""

from typing import TYPE_CHECKING

import numpy as np

from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

__all__ = ["expression"]


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
    AnnData of all spots and the predicted genes. X is the prediction. Its units are in
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
    genes = pd.DataFrame(index=pd.Index([str(name) for name in details["genes"]]))
    table = anndata.AnnData(
        np.array(X), obs=adata.obs.copy(), var=genes, uns={"units": details["units"]}
    )
    uncertainty = adata.obsm.get(keys.uncertainty(key))
    if uncertainty is not None:
        table.layers["uncertainty"] = np.array(uncertainty)
    if keys.SPATIAL in adata.obsm:
        table.obsm[keys.SPATIAL] = adata.obsm[keys.SPATIAL].copy()
    return table
