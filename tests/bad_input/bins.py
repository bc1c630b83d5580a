"""Bins of Visium HD."""

import numpy as np
from tests.bad_input.case import refused
from tests.bad_input.examples import GENE

import stp


@refused(ValueError, r"size_um=20 is no multiple of the bins of 8 µm.*pass size_um= 16 or 24")
def a_size_that_is_no_multiple_of_the_bins(bins):
    """A square has whole bins, so its side is a multiple of theirs.

    Pass one of the sizes that the error names, or read smaller bins.
    """
    stp.tl.aggregate_bins(bins, size_um=20, table_key="square_008um")


@refused(ValueError, "stride_um=24 is larger than size_um=16, so bins between")
def squares_with_gaps_between_them(bins):
    """Squares that are farther apart than they are wide would lose the counts between them.

    Pass a `stride_um` of at most `size_um`.
    """
    stp.tl.aggregate_bins(bins, size_um=16, stride_um=24, table_key="square_008um")


@refused(ValueError, "slide is no square lattice of bins: obs needs array_row and array_col")
def spots_that_are_no_bins(sdata):
    """Only bins of a square lattice, such as those of Visium HD, make larger squares or cells.

    Read them with {func}`stp.io.read_visium_hd`; spots of Visium are not summed.
    """
    stp.tl.aggregate_bins(sdata, size_um=200)


@refused(ValueError, "spots of slide lie 200 µm apart, and bins at most 100")
def spots_with_gaps_between_them(adata):
    """Spots of Spatial Transcriptomics lie on a square lattice, but tissue lies between them.

    Use them as they are: their counts are not those of a square.
    """
    adata.obs["array_row"], adata.obs["array_col"] = np.divmod(np.arange(adata.n_obs), 5)
    adata.obsm["spatial"] = adata.obs[["array_col", "array_row"]].to_numpy() * 50.0
    spots = stp.io.from_anndata(adata, None, spot_pitch_um=200)
    stp.tl.aggregate_bins(spots, size_um=400)


@refused(ValueError, "no spot is left to embed: .* have fewer than 1,000,000 counts")
def no_spot_has_enough_counts(sdata, model):
    """`min_counts` leaves all spots out.

    Lower `min_counts`; `adata.X.sum(axis=1)` shows the counts of the spots.
    """
    stp.tl.embed_images(sdata, model, min_counts=1_000_000)


@refused(ValueError, r"radius_um=50 reaches fewer than 8 spots around most spots of .*at least 174")
def a_radius_that_reaches_no_neighbors(sdata, vocabulary):
    """A neighborhood has eight spots around its center, and the radius reaches fewer.

    Pass a larger `radius_um`; the error names the smallest. By default the eight nearest spots are
    the neighborhood.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    phases = (stp.train.Phase(objective="neighborhood"),)
    config = stp.train.PretrainConfig(phases=phases, min_genes=1, radius_um=50)
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary, model=GENE, config=config)
