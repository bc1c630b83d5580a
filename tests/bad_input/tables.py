"""Tables and their spots."""

import anndata
import numpy as np
import pandas as pd
from tests.bad_input.case import refused
from tests.bad_input.examples import table

import stp


@refused(ValueError, r"columns \['array_row', 'array_col'\].*array_col are no pixels; name them x")
def the_columns_of_the_coordinates_have_other_names(adata):
    """The names do not tell which column is x. Lattice indices are no pixels.

    Name the columns `x` and `y`: x counts pixels to the right, y counts them down.
    """
    adata.obsm["spatial"] = adata.obs[["array_row", "array_col"]]
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(ValueError, r"1 of 35 spots have no coordinates \(\S+\).*missing='drop'")
def a_spot_has_no_coordinates(adata):
    """The list of positions has fewer spots than the counts.

    Read the complete list. Or pass `missing="drop"` to leave these spots out.
    """
    adata.obsm["spatial"][3] = np.nan
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(ValueError, r"libraries \['A', 'B'\] of uns\['spatial'\].*library_key='sample'")
def a_table_of_several_libraries():
    """Two slides were concatenated. The spots of both would lie on one image.

    Pass the column of `obs` that names the slides, and a mapping from slide to image.
    """
    slides = {"A": table(), "B": table()}
    for name, adata in slides.items():
        adata.uns["spatial"] = {name: {"scalefactors": {"spot_diameter_fullres": 16.0}}}
    both = anndata.concat(slides, label="sample", index_unique="-", uns_merge="unique")
    stp.io.from_anndata(both, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(ValueError, r"the spots \S+ and \S+ share the lattice position \(0, 0\)")
def two_spots_at_one_place():
    """Two slides were concatenated, or a spot is in the table twice.

    Pass `library_key=`, or remove the repeated spot.
    """
    both = anndata.concat({"A": table(), "B": table()}, index_unique="-")
    stp.io.from_anndata(both, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(ValueError, r"keys of image= are \['A', 'C'\], the libraries in obs\['sample'\] are \['A'")
def the_libraries_have_other_names_than_the_images():
    """The names in the column of `obs` and those of the images differ.

    Give each library its image, or None if it has no image.
    """
    both = anndata.concat({"A": table(), "B": table()}, label="sample", index_unique="-")
    picture = np.zeros((700, 700, 3), dtype=np.uint8)
    stp.io.from_anndata(both, {"A": picture, "C": picture}, library_key="sample")


@refused(ValueError, "repeat an id, e.g. 1: a row would get the place of another spot")
def two_shapes_have_one_id(sdata, model):
    """The shapes were concatenated without new ids, so an id has two places.

    Number the shapes anew, and write their numbers to the column of `obs` that names them.
    """
    shapes = sdata.shapes["slide"]
    sdata.shapes["slide"] = pd.concat([shapes, shapes.iloc[[1]]])
    stp.tl.embed_images(sdata, model)
