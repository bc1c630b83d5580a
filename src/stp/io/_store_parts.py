"""The parts of a store in memory: counts by gene, spots, and an image without pixels."""

from typing import TYPE_CHECKING, Any

import numpy as np

from stp.genes.vocabulary import Vocabulary
from stp.images.regions import annotate_shapes, check_one_slide, spots_in_um
from stp.images.scale import um_per_unit_from_lattice
from stp.images.slides import Slide
from stp.io._store_image import StoreLevels, empty_image
from stp.tables.coordinates import REMEDY, read_coordinates, require_coordinates
from stp.tables.counts import count_blocks
from stp.tables.keys import SPATIAL
from stp.tables.table import gene_names
from stp.tables.valid_names import make_storable

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

SPOT_RADIUS_UM = 27.5


def sum_counts_by_gene(table: "AnnData", layer: str | None, gene_ids_key: str | None) -> "AnnData":
    """Return the table with raw counts in `X`, one column per gene, named by Ensembl id.

    Genes that the human vocabulary does not know keep their names.
    """
    import anndata
    import pandas as pd
    import scipy.sparse

    vocabulary = Vocabulary.default()
    names = gene_names(table, gene_ids_key).astype(str)
    tokens = vocabulary.encode(names)
    ids = np.where(tokens >= 0, vocabulary.gene_ids[tokens].astype(str), names)
    unique_ids, columns = np.unique(ids, return_inverse=True)
    ones = np.ones(len(ids), np.float32)
    to_gene = scipy.sparse.csr_matrix((ones, (np.arange(len(ids)), columns)))
    blocks = [block.astype(np.float32) @ to_gene for block in count_blocks(table, layer)]
    symbols = pd.Series(table.var_names.astype(str)).groupby(columns).first()
    var = pd.DataFrame({"symbol": symbols.to_numpy()}, index=pd.Index(unique_ids, name="gene_id"))
    X = scipy.sparse.vstack(blocks, format="csr")
    return anndata.AnnData(X, obs=table.obs.copy(), var=var)


def centers_without_image(
    sdata: Any, table: "AnnData", um_per_px: float | None
) -> tuple[np.ndarray | None, str]:
    """Return the spot centers (n, 2) of a slide without an image, and their unit.

    The unit is "um" if the scale is known, else "". There may be no centers.

    Raises
    ------
    ValueError
        The table covers several slides, or spots have no coordinates.
    """
    centers = spots_in_um(sdata, table)
    is_in_um = centers is not None
    if centers is None and SPATIAL in table.obsm:
        centers = read_coordinates(table)
    check_one_slide(table, centers)
    if centers is None:
        return None, ""
    require_coordinates(centers, table.obs_names, REMEDY)
    if is_in_um:
        return centers, "um"
    um_per_unit = um_per_px or um_per_unit_from_lattice(table.obs, centers)
    return (centers * um_per_unit, "um") if um_per_unit else (centers, "")


def assemble_store(
    adata: "AnnData",
    centers: np.ndarray | None,
    unit: str,
    slide: Slide | None,
    levels: StoreLevels,
) -> "SpatialData":
    """Return the store in memory: its image has no pixels yet."""
    import spatialdata
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    make_storable(adata)
    if centers is None:
        return spatialdata.SpatialData(tables={"table": TableModel.parse(adata)})
    adata.obsm[SPATIAL] = centers
    systems = {unit or "global": Identity()}
    spots = ShapesModel.parse(centers, geometry=0, radius=SPOT_RADIUS_UM, transformations=systems)
    return spatialdata.SpatialData(
        images={"image": empty_image(slide.pyramid, levels)} if slide else {},
        shapes={"spots": spots},
        tables={"table": annotate_shapes(adata, "spots")},
    )
