"""Results as tables of their own."""

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
        Table of a SpatialData.

    Returns
    -------
    AnnData of all spots and the predicted genes: X holds the prediction, in the units that `uns["units"]` names
    (log1p of counts per 10,000 unless another layer was predicted); `layers["uncertainty"]` how far the references
    disagree, where the prediction was retrieved; `obs` and the coordinates in `obsm["spatial"]` are those of `adata`.

    Raises
    ------
    KeyError
        There is no such prediction.

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
    X = require(adata, "obsm", key, "stp.tl.predict_expression(adata, reference)")
    details = require(adata, "uns", key, "stp.tl.predict_expression(adata, reference)")
    genes = pd.DataFrame(index=pd.Index([str(name) for name in details["genes"]]))
    kept = {name: adata.obsm[name].copy() for name in (keys.SPATIAL,) if name in adata.obsm}
    spread = adata.obsm.get(keys.uncertainty(key))
    layers = {} if spread is None else {"uncertainty": np.array(spread)}
    uns = {"units": details["units"]}
    return anndata.AnnData(
        np.array(X), obs=adata.obs.copy(), var=genes, layers=layers, obsm=kept, uns=uns
    )
