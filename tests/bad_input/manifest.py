"""Manifests of collections."""

from pathlib import Path

from tests.bad_input.case import refused

import stp


@refused(ValueError, "which is unknown: did you mean 'um_per_px'")
def a_column_of_a_manifest_is_misspelled(adata):
    """A column whose name is almost one that a manifest knows is taken for a typing error.

    Rename it. {func}`stp.io.write_collection` lists the columns; further ones need other names.
    """
    adata.write_h5ad("a.h5ad")
    Path("manifest.csv").write_text("name,path,um_per_pixel\nA,a.h5ad,0.5\n")
    stp.io.write_collection("manifest.csv", "stores")


@refused(ValueError, "because of 3 faults.*rows 1 and 2 have the name 'A'.*0,5.*no file or folder")
def a_manifest_has_several_faults(adata):
    """All rows are checked before the first store is written, and one error lists all that is
    wrong: here a name of two rows, a decimal comma, and a file that is missing.

    Correct the rows that the message names.
    """
    adata.write_h5ad("a.h5ad")
    Path("manifest.csv").write_text('name,path,um_per_px\nA,a.h5ad,"0,5"\nA,b.h5ad,0.5\n')
    stp.io.write_collection("manifest.csv", "stores")


@refused(ValueError, "'h5ad' takes no bin_um")
def a_row_has_a_value_that_its_source_does_not_take(adata):
    """Each kind of source has its own arguments. A value that would be ignored is refused.

    Leave the cell empty, or check whether the path is the one that you mean.
    """
    adata.write_h5ad("a.h5ad")
    Path("manifest.csv").write_text("name,path,bin_um\nA,a.h5ad,8\n")
    stp.io.write_collection("manifest.csv", "stores")


@refused(ValueError, "no vocabulary for the species 'mouse'")
def a_species_of_a_manifest_has_no_vocabulary(adata):
    """The package has a vocabulary of human genes only. Rows of other species need theirs.

    Make one with `stp.Vocabulary.from_genes`, and pass it as `vocabulary=` or with `--vocabulary`.
    """
    adata.write_h5ad("a.h5ad")
    Path("manifest.csv").write_text("name,path,species\nA,a.h5ad,mouse\n")
    stp.io.write_collection("manifest.csv", "stores")


@refused(ValueError, r"A\.zarr exists and was not made from a manifest")
def a_store_of_another_origin_is_in_the_way(adata):
    """A store that {func}`stp.io.write_store` wrote, or any other folder, is never replaced.

    Move it, or choose another name or another folder.
    """
    adata.write_h5ad("a.h5ad")
    stp.io.write_store(adata, "stores/A.zarr")
    Path("manifest.csv").write_text("name,path\nA,a.h5ad\n")
    stp.io.write_collection("manifest.csv", "stores")
