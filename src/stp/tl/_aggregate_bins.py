"""Sum small bins to larger ones, or to cells."""

from typing import TYPE_CHECKING

from stp._log import count, logger
from stp.images.regions import check_one_slide
from stp.tables import keys
from stp.tables.sums import RowSums, sum_all, sum_rows
from stp.tables.table import get_table, record
from stp.tl._bin_groups import BinGroups, group_by_cells, group_by_squares
from stp.tl._bins import find_bins

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def aggregate_bins(
    sdata: "SpatialData",
    *,
    size_um: float | None = None,
    stride_um: float | None = None,
    cells_key: str | None = None,
    layer: str | None = None,
    table_key: str = "table",
    key_added: str = "bins",
    copy: bool = False,
) -> "AnnData | None":
    """Sum the counts of bins, such as those of Visium HD, to larger squares or to cells.

    Give either `size_um` or `cells_key`. Counts are summed exactly. Squares begin where those of
    Space Ranger begin: four bins of 8 µm make the bin of 16 µm that Space Ranger writes. A square
    has the bins that the table has, so at the edge of the tissue it has fewer.

    Parameters
    ----------
    sdata
        SpatialData with the bins of one slide, as :func:`stp.io.read_visium_hd` reads them.
    size_um
        Side of the squares in µm, a multiple of the side of the bins.
    stride_um
        µm from one square to the next, a multiple of the side of the bins; by default `size_um`.
        With less, squares overlap, and a count is in several of them.
    cells_key
        Name of shapes with an outline for each cell. A bin belongs to the cell in which its center
        lies; of several cells, to the one whose centroid is nearest.
    layer
        Layer with the raw counts; by default `X`.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return the new table, and leave the SpatialData as it is; the table annotates no shapes.

    Returns
    -------
    `None` if `copy=False`, else the new table. Adds the following elements:

    `sdata.tables['bins' | key_added]` : AnnData
        A row for each square or cell with a bin, and all of `var`. `X` has the type of the counts,
        or a wider one if the sums need it. `obs["n_bins"]` is the number of bins of each row,
        `obs["in_tissue"]` whether at least half of them are in tissue, if the bins have this
        column, and `obsm["spatial"]` the center. Squares have `array_row` and `array_col`.
    `sdata.shapes['bins_square_016um']`
        The squares, named after `key_added`, their side, and their distance if they overlap. They
        have the coordinate systems of the bins. Cells are annotated as they are; if they lack the
        coordinate system "um" of the bins, it is added.
    `sdata.tables['bins' | key_added].uns['stp_bins']` : dict
        `params`; `n_bins` and `n_counts` of the table; `n_bins_outside` and `n_counts_outside`,
        which are in no cell; `n_counts_summed`, which counts repeat if squares overlap;
        `n_bins_shared`, which lie in several cells; `n_cells_without_bins`, which have no row;
        `version` of stp.

    Raises
    ------
    KeyError
        A named element is missing.
    TypeError
        The data are no SpatialData.
    ValueError
        Neither or both of `size_um` and `cells_key` are given, a size is no multiple of the bins,
        the bins are on no square lattice, lie more than 100 µm apart, overlap or have no scale,
        the counts are not raw, or `key_added` is the name of another element.

    Examples
    --------
    >>> slide = stp.io.read_visium_hd("visium_hd", bin_um=8)
    >>> stp.tl.aggregate_bins(slide, size_um=16, table_key="square_008um")
    >>> bool(slide["bins"].X.sum() == slide["square_008um"].X.sum())
    True
    """
    _check_arguments(size_um, stride_um, cells_key)
    if not hasattr(sdata, "shapes"):
        raise TypeError(
            f"bins have shapes, and {type(sdata).__name__} has none: pass a SpatialData, as "
            "stp.io.read_visium_hd returns it"
        )
    table = get_table(sdata, table_key)
    check_one_slide(table)
    _check_overlap(table, table_key)
    if not copy:
        _check_name(sdata, key_added)
    bins = find_bins(sdata, table, table_key)
    if cells_key is not None:
        groups = group_by_cells(sdata, bins, cells_key)
    else:
        assert size_um is not None
        groups = group_by_squares(bins, size_um, stride_um or size_um, key_added)
    sums = sum_rows(table, groups.membership, layer)
    new = groups.make_table(sums.counts, table.var.copy())
    params = {
        "size_um": size_um,
        "stride_um": size_um if stride_um is None else stride_um,
        "cells_key": cells_key,
        "bin_um": bins.pitch_um,
        "layer": layer,
        "table_key": table_key,
    }
    numbers = _count(table, groups, sums, layer)
    record(new, keys.BINS, params, **numbers)
    _log(groups, numbers)
    if copy:
        return new
    groups.add(sdata, new, bins, key_added)
    return None


def _check_arguments(size_um: float | None, stride_um: float | None, cells_key: str | None) -> None:
    """Raise ValueError unless the arguments ask for squares or for cells."""
    if (size_um is None) == (cells_key is None):
        raise ValueError(
            f"size_um={size_um} and cells_key={cells_key!r}: pass exactly one of them, size_um for "
            "squares or cells_key for cells"
        )
    if stride_um is None:
        return
    if size_um is None:
        raise ValueError(f"stride_um={stride_um:g} is for squares: pass size_um, not cells_key")
    if stride_um > size_um:
        raise ValueError(
            f"stride_um={stride_um:g} is larger than size_um={size_um:g}, so bins between the "
            f"squares would be lost; pass at most {size_um:g}"
        )


def _check_overlap(table: "AnnData", table_key: str) -> None:
    """Raise ValueError if the bins are squares of this verb that overlap."""
    params = table.uns.get(keys.BINS, {}).get("params", {})
    if params.get("stride_um") != params.get("size_um"):
        raise ValueError(
            f"the squares of table {table_key!r} overlap, so their sums would have counts several "
            "times; pass table_key= of the bins that they were made of"
        )


def _check_name(sdata: "SpatialData", key_added: str) -> None:
    """Raise ValueError if the name is that of an element that this verb did not make."""
    names = {name for _, name, _ in sdata.gen_elements()}
    is_ours = key_added in sdata.tables and keys.BINS in sdata.tables[key_added].uns
    if key_added in names and not is_ours:
        raise ValueError(
            f"{key_added!r} is another element of the SpatialData; pass another key_added="
        )


def _count(table: "AnnData", groups: BinGroups, sums: RowSums, layer: str | None) -> dict[str, int]:
    """Return how many bins and counts there are, and how many are in no group."""
    n_counts_outside = sum_all(table, groups.outside, layer)
    n_counts = sums.n_counts + n_counts_outside
    if groups.has_overlap:
        n_counts = n_counts_outside + sum_all(table, groups.inside, layer)
    return {
        "n_bins": table.n_obs,
        "n_counts": n_counts,
        "n_bins_outside": len(groups.outside),
        "n_counts_outside": n_counts_outside,
        "n_counts_summed": sums.n_counts,
        "n_bins_shared": groups.n_shared,
        "n_cells_without_bins": groups.n_empty,
    }


def _log(groups: BinGroups, numbers: dict[str, int]) -> None:
    """Log what was summed, and what is in no cell."""
    n_groups = groups.membership.shape[0]
    message = f"Summed {count(numbers['n_bins'], 'bin')} to {count(n_groups, groups.noun)}"
    if groups.has_overlap:
        repeats = numbers["n_counts_summed"] / max(numbers["n_counts"], 1)
        message += f"; they overlap, and a count is in {repeats:.3g} of them on average"
    if numbers["n_bins_outside"]:
        share = numbers["n_counts_outside"] / max(numbers["n_counts"], 1)
        message += (
            f"; {count(numbers['n_bins_outside'], 'bin')} with {share:.1%} of the counts "
            f"are in no {groups.noun}"
        )
    if numbers["n_cells_without_bins"]:
        message += f"; {count(numbers['n_cells_without_bins'], groups.noun)} without a bin left out"
    if numbers["n_bins_shared"]:
        message += f"; {count(numbers['n_bins_shared'], 'bin')} in several cells"
    logger.info(f"{message}.")
