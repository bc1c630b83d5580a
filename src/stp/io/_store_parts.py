"""The parts of a store in memory: counts by gene, spots, and an image without pixels."""

from typing import TYPE_CHECKING, Any

import numpy as np

from stp.data.store_source import STORE
from stp.genes.coverage import check_coverage, sum_by_rule
from stp.genes.gene_lookup import GeneLookup
from stp.genes.species import SPECIES
from stp.genes.table_genes import TableGenes
from stp.genes.vocabulary import Vocabulary
from stp.images.coordinates import affine_of, linear_scale
from stp.images.lattice import lattice_scale
from stp.images.regions import (
    annotate_shapes,
    check_one_slide,
    find_spots,
    list_regions,
    spots_in_um,
)
from stp.images.scale import UM_SYSTEM, USER, resolve_scale, scale_factors, um_of_system
from stp.images.slides import Slide, SlideQuery
from stp.images.spacing import warn_if_not_plausible
from stp.io._store_image import StoreLevels, empty_image
from stp.tables.coordinates import REMEDY, read_coordinates, require_coordinates
from stp.tables.counts import count_blocks
from stp.tables.growing_rows import GrowingRows
from stp.tables.keys import SPATIAL, TABLE, UNNAMED
from stp.tables.valid_names import make_storable, unique_names

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

SPOT_RADIUS_UM = 27.5
IMAGE = "image"


def sum_counts_by_gene(
    table: "AnnData", genes: TableGenes, vocabulary: Vocabulary, layer: str | None
) -> "AnnData":
    """Return the table with raw counts in `X`, one column per gene, named by the vocabulary.

    Genes that the vocabulary does not know keep their names. Genes of another species and rows of
    `var` that are no genes are left out.
    """
    import anndata
    import pandas as pd
    import scipy.sparse

    index = genes.matches.index
    is_kept = genes.is_gene & ~np.isin(genes.matches.rule.astype(str), SPECIES)
    names = genes.names.astype(str)
    ids = np.where(index >= 0, vocabulary.gene_ids[index].astype(str), names)
    unique_ids, first, columns = np.unique(ids[is_kept], return_index=True, return_inverse=True)
    ones = np.ones(len(columns), np.float32)
    to_gene = scipy.sparse.csr_matrix(
        (ones, (np.flatnonzero(is_kept), columns)), shape=(len(ids), len(unique_ids))
    )
    umis = np.zeros(len(ids), np.int64)
    rows = GrowingRows(len(unique_ids))
    for block in count_blocks(table, layer):
        umis += np.asarray(block.sum(axis=0, dtype=np.float64)).ravel().astype(np.int64)
        rows.add(block.astype(np.float32) @ to_gene)
    is_unmapped = genes.is_gene & (index < 0)
    unmapped = sum_by_rule(genes.matches.rule[is_unmapped], umis[is_unmapped])
    check_coverage(unmapped, int(umis[genes.is_gene].sum()), n_genes=len(vocabulary))
    var_columns = {
        "symbol": _find_symbols(table, genes, vocabulary)[is_kept][first],
        "umis": np.bincount(columns, umis[is_kept], len(unique_ids)).astype(np.int64),
    }
    var = pd.DataFrame(var_columns, index=pd.Index(unique_ids, name="gene_id"))
    return anndata.AnnData(rows.to_csr(), obs=table.obs.copy(), var=var)


def _find_symbols(table: "AnnData", genes: TableGenes, vocabulary: Vocabulary) -> np.ndarray:
    """Return the symbol of each gene (n_vars,): that of the vocabulary, or else of the table.

    A gene without a symbol has its name.
    """
    index = genes.matches.index
    symbols = np.where(index >= 0, vocabulary.symbols[index], "").astype(object)
    for own in (GeneLookup(table).symbols, genes.names):
        symbols = np.where(symbols == "", own, symbols)
    return symbols.astype(str).astype(object)


def name_slide(sdata: Any, table: "AnnData", file_name: str) -> str:
    """Return the name of a slide that SpatialData can store.

    It is the region that the table annotates, unless that is a name of every slide, such as
    "slide". Then it is the name of the slide in the store that is written again, or else the name
    of the file.
    """
    attrs = table.uns.get("spatialdata_attrs")
    names = [region.name for region in list_regions(table)] if attrs else []
    if not names or names[0] in UNNAMED:
        former = getattr(sdata, "attrs", {}).get(STORE, {}).get("name")
        names = [former or file_name]
    return unique_names(names[:1], reserved=[TABLE, IMAGE])[0]


def centers_without_image(
    sdata: Any, table: "AnnData", query: SlideQuery
) -> tuple[np.ndarray | None, str]:
    """Return the spot centers (n, 2) of a slide without an image, and their unit.

    The unit is "um" if the scale is known, else "". There may be no centers. The `um_per_px` of the
    query is µm per unit of the centers.

    Raises
    ------
    ValueError
        The table covers several slides, or spots have no coordinates.
    """
    in_um = spots_in_um(sdata, table)
    centers = in_um
    if centers is None and SPATIAL in table.obsm:
        centers = read_coordinates(table)
    check_one_slide(table, centers)
    if centers is None:
        return None, ""
    require_coordinates(centers, table.obs_names, REMEDY)
    if in_um is not None:
        factor = _correct_um(sdata, table, in_um, query)
        warn_if_not_plausible(in_um * factor, factor, "the table")
        return in_um * factor, "um"
    lattice = lattice_scale(table.obs, centers, spot_pitch_um=query.spot_pitch_um)
    sources = {
        USER: query.um_per_px,
        "microns_per_pixel of the scalefactors": scale_factors(table.uns).get("microns_per_pixel"),
        **lattice.um_per_unit,
    }
    if all(value is None for value in sources.values()):
        return centers, ""
    scale = resolve_scale(sources)
    um = centers * scale.um_per_px
    warn_if_not_plausible(um, scale.um_per_px, "the table")
    return um, "um"


def _correct_um(sdata: Any, table: "AnnData", in_um: np.ndarray, query: SlideQuery) -> float:
    """Return the factor from the coordinate system "um" of the spots to the µm of the query."""
    region = list_regions(table)[0].name
    um_per_unit = um_of_system(find_spots(sdata, region))
    if um_per_unit is None:
        return 1.0
    pitch_scale = None
    if query.spot_pitch_um is not None:
        lattice = lattice_scale(table.obs, in_um, spot_pitch_um=query.spot_pitch_um)
        pitch_scale = lattice.um_per_unit["spot_pitch_um"]
    scale = resolve_scale(
        {
            USER: query.um_per_px,
            UM_SYSTEM: um_per_unit,
            "spot_pitch_um": None if pitch_scale is None else pitch_scale * um_per_unit,
        }
    )
    return scale.um_per_px / um_per_unit


def spot_radius_um(sdata: Any, table: "AnnData", slide: Slide | None, query: SlideQuery) -> float:
    """Return the radius of the spots of a slide in µm: that of their circles, or half their side.

    Spots without a shape, or whose size in µm is unknown, get that of Visium.
    """
    attrs = table.uns.get("spatialdata_attrs")
    shapes = getattr(sdata, "shapes", {})
    key = query.shapes_key or (list_regions(table)[0].name if attrs else None)
    if key not in shapes:
        return SPOT_RADIUS_UM
    spots = shapes[key]
    if slide is not None:
        to_pixels = slide.pyramid.affine @ affine_of(spots, slide.coordinate_system)
        um_per_unit = linear_scale(to_pixels) * slide.pyramid.um_per_px
    elif (in_um := spots_in_um(sdata, table)) is not None:
        um_per_unit = (um_of_system(spots) or 1.0) * _correct_um(sdata, table, in_um, query)
    else:
        return SPOT_RADIUS_UM
    if "radius" in spots:
        return float(np.median(spots["radius"])) * um_per_unit
    return float(np.sqrt(np.median(spots.area))) / 2 * um_per_unit


def assemble_store(
    adata: "AnnData",
    centers: np.ndarray | None,
    unit: str,
    slide: Slide | None,
    levels: StoreLevels,
    name: str,
    radius: float = SPOT_RADIUS_UM,
) -> "SpatialData":
    """Return the store in memory: its image has no pixels yet. Its region has the slide's name.

    `radius` is that of a spot, in the unit of the centers.
    """
    import spatialdata
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    make_storable(adata)
    if centers is None:
        return spatialdata.SpatialData(tables={TABLE: TableModel.parse(adata)})
    adata.obsm[SPATIAL] = centers
    systems = {unit or "global": Identity()}
    spots = ShapesModel.parse(centers, geometry=0, radius=radius, transformations=systems)
    return spatialdata.SpatialData(
        images={IMAGE: empty_image(levels)} if slide else {},
        shapes={name: spots},
        tables={TABLE: annotate_shapes(adata, name)},
    )
