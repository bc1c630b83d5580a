"""Stores and training."""

from pathlib import Path

import spatialdata
import zarr
from tests.bad_input.case import refused
from tests.bad_input.examples import GENE

import stp


@refused(FileExistsError, "pass overwrite=True to replace it")
def the_store_exists(sdata):
    """`stp` does not overwrite files unless you ask for it.

    Choose another path, or pass `overwrite=True`.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)


@refused(ValueError, "is not a training store.*stp.io.write_store makes one")
def a_SpatialData_in_place_of_a_store(sdata, vocabulary):
    """Training reads stores: SpatialData folders with Ensembl ids, two levels of the image and
    small chunks.

    Write a store with {func}`stp.io.write_store`.
    """
    sdata.write("slide.zarr")
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary)


@refused(
    ValueError, r"is a store of version 2.*stp\.io\.write_store\(slide, path, overwrite=True\)"
)
def a_store_of_a_former_version(sdata, vocabulary):
    """An earlier version of stp wrote the store. It does not record a digest of its content.

    Write the store again from its slide: `stp.io.write_store(slide, path, overwrite=True)`.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    attrs = zarr.open_group("slide.zarr", use_consolidated=False).attrs
    attrs["stp_store"] = {"version": 2, "name": "slide"}
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary)


@refused(ValueError, r"genes or spots of .* changed after the store was written.*write it again")
def a_part_of_a_store(sdata, vocabulary):
    """The table of a store was made smaller, and SpatialData wrote it. The copy has the digest of
    the whole store, but not its content.

    Write the part with `stp.io.write_store`.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    part = spatialdata.read_zarr("slide.zarr")
    part.tables["table"] = part["table"][:20].copy()
    part.write("part.zarr")
    stp.train.pretrain(["part.zarr"], "run", vocabulary=vocabulary, model=GENE)


@refused(TypeError, "stores is one path.*pass a list of paths")
def one_path_in_place_of_a_list(vocabulary):
    """Training reads a list of stores.

    Put the path into a list, or list a folder: `sorted(Path("stores").glob("*.zarr"))`.
    """
    stp.train.pretrain("slide.zarr", "run", vocabulary=vocabulary)


@refused(ValueError, "there is no store to train on")
def a_pattern_that_matches_no_store(vocabulary):
    """The list of stores is empty, often because its pattern matches nothing.

    Look at the list. Relative paths start at the working directory.
    """
    stp.train.pretrain(sorted(Path("stores").glob("*.zarr")), "run", vocabulary=vocabulary)


@refused(ValueError, "have the same content; list every slide once")
def a_store_is_given_twice(sdata, vocabulary):
    """A slide is twice in the list, or it is in both training and validation. Stores are compared
    by the digest of their content, so a copy or a link under another name counts as the store.

    Remove the store from one of the two.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    stp.train.pretrain(
        ["slide.zarr"], "run", vocabulary=vocabulary, validation=["slide.zarr"], model=GENE
    )


@refused(ValueError, "device 'gpu' cannot be used here.*stp doctor lists what can")
def a_device_that_does_not_exist(sdata, vocabulary):
    """PyTorch does not know the device, or cannot use it on this machine.

    Do not pass `device`: a GPU is then used if there is one. `stp doctor` shows why a GPU cannot be
    used.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    config = stp.train.PretrainConfig(device="gpu")
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary, model=GENE, config=config)


@refused(ValueError, "needs spot coordinates.*which these stores lack")
def stores_without_what_a_stage_needs(sdata, vocabulary):
    """Neighborhoods need coordinates, and alignment needs images. These stores have only counts.

    Write them again with {func}`stp.io.from_anndata`, or train only with masked genes:
    `PretrainConfig(phases=(Phase(objective="masked"),))`.
    """
    del sdata["table"].obsm["spatial"], sdata["table"].uns["spatialdata_attrs"]
    stp.io.write_store(spatialdata.SpatialData(tables=dict(sdata.tables)), "counts.zarr")
    stp.train.pretrain(["counts.zarr"], "run", vocabulary=vocabulary, model=GENE)


@refused(ValueError, "no spot of 1 stores detects 5000 genes; lower min_genes")
def no_spot_has_enough_genes(sdata, vocabulary):
    """Training ignores spots with few genes. Here all spots have few genes, because of a small
    panel or shallow sequencing.

    Lower `min_genes`. For Visium HD use larger bins.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    config = stp.train.PretrainConfig(min_genes=5000)
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary, model=GENE, config=config)


@refused(ValueError, "need gene_sets, a GMT file")
def pathways_without_gene_sets():
    """Alignment with pathways needs the genes of each pathway.

    Pass a GMT file, for example of MSigDB or Reactome: `gene_sets="hallmark.gmt"`.
    """
    stp.train.AlignConfig(targets="pathways")


@refused(ValueError, "has a user or password, which s3:// does not take")
def an_address_with_the_keys_of_S3(sdata):
    """The keys of S3 are no part of an address, because addresses are written to logs and files.

    Set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or choose a profile by `AWS_PROFILE`.
    """
    stp.io.write_store(sdata, "s3://KEY:SECRET@bucket/slide.zarr", patch_um_per_px=4)


@refused(PermissionError, "is on a web server, which cannot be written to")
def a_store_on_a_web_server(sdata):
    """Web servers only send files. Stores are written to local disks and to object stores.

    Give an address such as `s3://bucket/slide.zarr`, or a local path.
    """
    stp.io.write_store(sdata, "https://host/slide.zarr", patch_um_per_px=4)


@refused(ValueError, "was given as a Path, which removes a slash")
def an_address_as_a_Path(vocabulary):
    """`pathlib.Path` makes one slash of two, so an address is no Path.

    Pass the address as text.
    """
    vocabulary.fit(Path("s3://bucket/slide.zarr"))


@refused(ConnectionError, "127.0.0.1:9/slide.zarr cannot be reached")
def a_server_that_cannot_be_reached(vocabulary):
    """The server does not run, the address is wrong, or there is no network. Users, passwords and
    tokens of an address are not shown.

    Check the address, and call again when the server runs; complete files are in the cache.
    """
    vocabulary.fit("http://user:password@127.0.0.1:9/slide.zarr")


@refused(ValueError, "output_dir .* is remote, and runs are written on local disks only")
def a_run_on_a_server(sdata, vocabulary):
    """Runs are written on local disks only. Stores may be remote.

    Give a local folder, and upload it after the run.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    config = stp.train.PretrainConfig(min_genes=1)
    stp.train.pretrain(
        ["slide.zarr"], "s3://bucket/run", vocabulary=vocabulary, model=GENE, config=config
    )
