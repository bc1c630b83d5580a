"""Stores and training."""

from pathlib import Path

import spatialdata
from tests.bad_input.case import refused
from tests.bad_input.given import GENE

import stp


@refused(FileExistsError, "pass overwrite=True to replace it")
def the_store_exists(sdata):
    """Nothing is replaced unasked.

    Choose another path, or pass `overwrite=True`.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)


@refused(ValueError, "is not a training store.*stp.io.write_store makes one")
def a_SpatialData_in_place_of_a_store(sdata, vocabulary):
    """Training reads stores that are written for it: Ensembl ids, two levels of the image, small chunks.

    Write one with {func}`stp.io.write_store`; it is a SpatialData, too.
    """
    sdata.write("slide.zarr")
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary)


@refused(TypeError, "stores is one path.*pass a list of paths")
def one_path_in_place_of_a_list(vocabulary):
    """Training takes a list of stores.

    Put the path into a list, or list a folder: `sorted(Path("stores").glob("*.zarr"))`.
    """
    stp.train.pretrain("slide.zarr", "run", vocabulary=vocabulary)


@refused(ValueError, "there is no store to train on")
def a_pattern_that_matches_no_store(vocabulary):
    """The list of stores is empty, mostly because the pattern it was made from matches nothing.

    Look at the list; relative paths are taken from where Python runs.
    """
    stp.train.pretrain(sorted(Path("stores").glob("*.zarr")), "run", vocabulary=vocabulary)


@refused(ValueError, "is given more than once")
def a_store_is_given_twice(sdata, vocabulary):
    """A slide stands twice in the list, or is trained on and validated with.

    A link to a store is that store. Take it out of one of the two.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    stp.train.pretrain(
        ["slide.zarr"], "run", vocabulary=vocabulary, validation=["slide.zarr"], model=GENE
    )


@refused(ValueError, "device 'gpu' cannot be used here.*stp doctor lists what can")
def a_device_that_is_not_there(sdata, vocabulary):
    """PyTorch knows no such device, or this machine has none that PyTorch can use.

    Leave `device` out, and a GPU is taken if there is one; `stp doctor` tells what keeps it from being used.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    config = stp.train.PretrainConfig(device="gpu")
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary, model=GENE, config=config)


@refused(ValueError, "needs spot coordinates.*which these stores lack")
def stores_without_what_a_stage_needs(sdata, vocabulary):
    """Neighborhoods need coordinates, alignment needs images; these stores were written of counts alone.

    Write them again with {func}`stp.io.from_anndata`; or train with masked genes alone:
    `PretrainConfig(phases=(Phase("masked"),))`.
    """
    del sdata["table"].obsm["spatial"], sdata["table"].uns["spatialdata_attrs"]
    stp.io.write_store(spatialdata.SpatialData(tables=dict(sdata.tables)), "counts.zarr")
    stp.train.pretrain(["counts.zarr"], "run", vocabulary=vocabulary, model=GENE)


@refused(ValueError, "no spot of 1 stores detects 5000 genes; lower min_genes")
def no_spot_has_enough_genes(sdata, vocabulary):
    """Spots of few genes are left out of training, and here all have few: a panel, or shallow sequencing.

    Lower `min_genes`; for Visium HD take larger bins.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    config = stp.train.PretrainConfig(min_genes=5000)
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary, model=GENE, config=config)


@refused(ValueError, "need gene_sets, a GMT file")
def pathways_without_gene_sets():
    """To align images with pathways, their genes must be known.

    Name a GMT file, such as those of MSigDB or Reactome: `gene_sets="hallmark.gmt"`.
    """
    stp.train.AlignConfig(targets="pathways")
