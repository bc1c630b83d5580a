"""Input that stp refuses, as users meet it: a test runs each of these functions, and each is an entry of docs/errors.

The name is the heading, the body what a user does, the docstring cause and remedy, and what is printed is raised.
"""

import contextlib
import inspect
import os
import re
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import scanpy as sc
import spatialdata
import tifffile
import torch
from anndata import AnnData
from huggingface_hub.errors import LocalEntryNotFoundError

import stp

CASES: list["Case"] = []
GENE = stp.models.GeneEncoderConfig(context_length=32, width=32, depth=1, n_heads=2, ffn_width=32)
IMAGE = stp.models.ImageEncoderConfig(
    "vit_tiny_patch16_224",
    {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
    image_size=32,
    um_per_px=4.0,
)


class Case(NamedTuple):
    """One kind of bad input."""

    section: str
    error: type[Exception]
    says: str  # a regular expression that the message holds
    function: Callable

    @property
    def title(self) -> str:
        name = self.function.__name__.replace("_", " ")
        return name[0].upper() + name[1:]

    @property
    def code(self) -> str:
        """What a user does: the body without its docstring."""
        body = textwrap.dedent(inspect.getsource(self.function)).split('"""')[2]
        return textwrap.dedent(body).strip()

    def run(self, folder: Path) -> Exception:
        """Do it in a folder, and return what it raises."""
        named = inspect.signature(self.function).parameters
        with contextlib.chdir(folder):
            try:
                self.function(**{name: GIVEN[name]() for name in named})
            except Exception as error:  # noqa: BLE001 - a test compares it with what is expected
                return error
        raise AssertionError(f"{self.title}: nothing was refused")


def refused(section: str, error: type[Exception], says: str) -> Callable:
    """List a function that raises `error` with a message that holds `says`."""

    def add(function: Callable) -> Callable:
        CASES.append(Case(section, error, says, function))
        return function

    return add


@cache
def _slide(name: str) -> spatialdata.SpatialData:
    return stp.datasets.synthetic_visium(seed=1, n_rows=6, n_cols=6, um_per_px=4, name=name)


def slide(name: str = "slide") -> spatialdata.SpatialData:
    made = _slide(name)
    return spatialdata.SpatialData(dict(made.images), shapes=dict(made.shapes), tables={"table": made["table"].copy()})


def table() -> AnnData:
    return slide()["table"]


@cache
def vocabulary() -> stp.Vocabulary:
    return stp.Vocabulary.default().fit([table()])


def stamp() -> stp.models.Stamp:
    return stp.models.Stamp(stp.models.StampConfig(GENE, IMAGE, projection_width=32), vocabulary())


@cache
def _embedded() -> AnnData:
    sdata, model = slide(), stamp()
    stp.tl.tokenize(sdata, model)
    stp.tl.embed_genes(sdata, model, progress=False)
    stp.tl.embed_images(sdata, model, progress=False)
    return sdata["table"]


def embedded() -> spatialdata.SpatialData:
    sdata = slide()
    sdata.tables["table"] = _embedded().copy()
    return sdata


# What the parameters of cases stand for, made anew for each: nobody sees what another did to it.
GIVEN = {"sdata": slide, "adata": table, "vocabulary": vocabulary, "model": stamp, "embedded": embedded}
SLIDES, GENES, IMAGES = "Reading slides", "Counts and genes", "Spots and images"
TRAINING, MODELS, RESULTS = "Stores and training", "Models", "Embeddings and predictions"


@refused(SLIDES, FileNotFoundError, r"no image at slide\.tif")
def the_image_is_not_there(adata):
    """The path leads nowhere; a relative one is taken from where Python runs.

    Give the path of the full-resolution TIFF, SVS, JPEG or PNG.
    """
    stp.io.from_anndata(adata, "slide.tif", um_per_px=0.5)


@refused(SLIDES, ValueError, "is a URL; download the image")
def the_image_is_a_URL(adata):
    """Patches are read in thousands of small pieces, which takes a file on disk.

    Download the image and give its path.
    """
    stp.io.from_anndata(adata, "https://example.org/slide.tif")


@refused(SLIDES, ValueError, "expected 8 bits per channel, got uint16; convert the image to uint8")
def the_image_has_16_bits(adata):
    """H&E models are made for 8 bits per channel; a fluorescence image has no such colors at all.

    Of an H&E image scale the values to 0 to 255 and convert them to uint8.
    """
    picture = np.zeros((700, 700, 3), dtype=np.uint16)
    stp.io.from_anndata(adata, picture, um_per_px=4)


@refused(SLIDES, ValueError, "expected an RGB image")
def the_image_has_one_channel(adata):
    """It is grayscale, or one channel of many.

    Give the RGB image, as (y, x, 3) or (3, y, x).
    """
    picture = np.zeros((700, 700), dtype=np.uint8)
    stp.io.from_anndata(adata, picture, um_per_px=4)


@refused(SLIDES, ValueError, "is the file complete")
def the_image_was_cut_off():
    """A download or a copy of the file ended early.

    Fetch it again, and compare size or checksum with those of the source.
    """
    tifffile.imwrite("slide.tif", np.zeros((512, 512, 3), dtype=np.uint8), photometric="rgb")
    os.truncate("slide.tif", 100_000)
    stp.io.read_wsi("slide.tif", um_per_px=0.5)


@refused(SLIDES, ValueError, "no physical scale: pass um_per_px=")
def the_physical_scale_is_unknown(adata):
    """Neither the file, nor scale factors, nor a lattice of Visium spots tells how large a pixel is.

    Pass `um_per_px=`: a scan at 20x has about 0.5 um per pixel, one at 40x about 0.25. See [](howto/physical-scale.md).
    """
    del adata.obs["array_row"], adata.uns["spatial"]
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(SLIDES, ValueError, "sources of the physical scale contradict each other")
def two_sources_give_different_scales(adata):
    """What was passed, the file, the scale factors and the lattice of spots differ by more than 5 %. Mostly the image
    is not the one that the spots were placed on, but a smaller copy.

    Give the image that was given to Space Ranger; or remove the source that is wrong, such as a resolution tag that an
    editor wrote into the file.
    """
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8), um_per_px=0.5)


@refused(SLIDES, KeyError, r"obsm\['spatial'\] is missing")
def the_table_has_no_coordinates(adata):
    """The counts were read without the positions of their spots.

    Read the whole Space Ranger folder ({func}`stp.io.read_visium`), or name the key that holds pixels (x, y) of the
    full-resolution image: `spatial_key=`.
    """
    del adata.obsm["spatial"]
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(SLIDES, FileNotFoundError, "no Space Ranger folder")
def the_Space_Ranger_folder_is_not_there():
    """The path leads nowhere.

    Give the folder `outs`, which holds `spatial` and the count matrix.
    """
    stp.io.read_visium("sample/outs", image="slide.tif")


@refused(SLIDES, ValueError, "no tile of 112 um holds 50% tissue")
def a_slide_without_tissue():
    """All tiles are glass: the scan is pale or gray, or its scale is wrong, so that a tile covers the whole slide.

    Check `um_per_px`, look at the image, and lower `min_tissue` where the stain is weak.
    """
    tifffile.imwrite("slide.tif", np.full((1024, 1024, 3), 240, dtype=np.uint8), photometric="rgb")
    stp.io.read_wsi("slide.tif", um_per_px=0.5, tile_um=112)


@refused(GENES, ValueError, "no raw count.*start from the raw counts")
def counts_were_normalized(adata, vocabulary):
    """Genes are ranked by raw counts; these were normalized, log-transformed or scaled.

    Keep the counts before: `adata.layers["counts"] = adata.X.copy()`, then pass `layer="counts"`.
    """
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    stp.tl.tokenize(adata, vocabulary)


@refused(GENES, KeyError, "no layer 'counts'; pass layer= one of")
def the_layer_is_not_there(adata, vocabulary):
    """The table has no such layer.

    Pass one of those that the message lists; without `layer=` it is X.
    """
    stp.tl.tokenize(adata, vocabulary, layer="counts")


@refused(GENES, ValueError, "no means to rank genes by")
def the_vocabulary_has_no_means(adata):
    """Genes are ranked by count over their mean in a corpus, and the vocabulary that is shipped has no corpus.

    Compute means on your slides, `Vocabulary.default().fit(tables)`, or take the vocabulary of a model: pass the
    model. See [](howto/vocabulary.md).
    """
    stp.tl.tokenize(adata, stp.Vocabulary.default())


@refused(GENES, ValueError, "the genes are those of mouse")
def genes_are_of_another_species(adata):
    """A human model cannot read mouse genes, and orthologs are not guessed.

    Make a vocabulary of the species and train with that: [](howto/vocabulary.md).
    """
    adata.var_names = [f"ENSMUSG{index:011d}" for index in range(adata.n_vars)]
    stp.Vocabulary.default().fit([adata])


@refused(GENES, ValueError, "no gene of the table is in the vocabulary.*pass gene_ids_key=")
def names_are_not_those_of_genes(adata, vocabulary):
    """`var_names` hold numbers, probes or anything else.

    If a column of `var` has ids or symbols, name it: `gene_ids_key="gene_ids"`. See [](howto/gene-names.md).
    """
    adata.var["gene_ids"] = adata.var_names
    adata.var_names = [f"probe{index}" for index in range(adata.n_vars)]
    stp.tl.tokenize(adata, vocabulary)


@refused(GENES, ValueError, r"only \d+\.\d% of UMIs are in genes of the vocabulary")
def most_counts_are_in_unknown_genes(adata, vocabulary):
    """More than half of all UMIs are in genes that the vocabulary does not have, so that ranks would mean little.

    `Vocabulary.explain(names)` shows what each name is taken for; check species and names. See [](howto/gene-names.md).
    """
    heaviest = np.argsort(-adata.X.sum(axis=0).A1)[:100]
    names = adata.var_names.to_numpy().copy()
    names[heaviest] = [f"probe{index}" for index in heaviest]
    adata.var_names = names
    stp.tl.tokenize(adata, vocabulary)


@refused(GENES, ValueError, r"call \.to_memory\(\) first")
def a_backed_table_is_to_be_copied(adata, vocabulary):
    """`copy=True` would read the whole file.

    Leave `copy` out, or call `adata.to_memory()` first.
    """
    adata.write_h5ad("counts.h5ad")
    backed = sc.read_h5ad("counts.h5ad", backed="r")
    stp.tl.tokenize(backed, vocabulary, copy=True)


@refused(IMAGES, TypeError, "images are needed: pass a SpatialData")
def images_are_wanted_of_an_AnnData(adata, model):
    """An AnnData has no full-resolution image.

    Join it with its image: {func}`stp.io.from_anndata`.
    """
    stp.tl.embed_images(adata, model)


@refused(IMAGES, KeyError, "no table 'cells'.*pass table_key= one of")
def the_table_has_another_name(sdata, vocabulary):
    """Readers name tables differently; those of Visium HD have one for each size of bins.

    Pass one of those that the message lists.
    """
    stp.tl.tokenize(sdata, vocabulary, table_key="cells")


@refused(IMAGES, ValueError, "several images fit the spots; pass image_key=")
def several_images_fit(sdata, model):
    """The spots lie in the coordinate systems of more than one RGB image, equally fine.

    Pass the one that is the H&E image.
    """
    sdata.images["copy"] = sdata.images["slide_full_image"]
    stp.tl.embed_images(sdata, model)


@refused(IMAGES, ValueError, "the image has 4 um per pixel, patches of 0.5 are wanted")
def the_image_is_too_coarse(sdata):
    """Finer pixels are wanted than the image has: often it is `tissue_hires_image.png`, 2,000 px wide, not the slide.

    Give the full-resolution slide ([](howto/slide-image.md)); or train with coarser patches, `patch_um_per_px=` here;
    or, knowing that details are missing, pass `allow_upsampling=True` to {func}`stp.tl.embed_images`.
    """
    stp.io.write_store(sdata, "stores/slide.zarr", patch_um_per_px=0.5)


@refused(IMAGES, ValueError, "one slide is needed, the table covers")
def a_table_of_several_slides(sdata):
    """A store is one slide.

    Write a store for each: subset the table, and SpatialData's `subset` or a query the rest.
    """
    both = spatialdata.concatenate({"a": sdata, "b": slide("other")}, concatenate_tables=True)
    stp.io.write_store(both, "stores/both.zarr", patch_um_per_px=4)


@refused(TRAINING, FileExistsError, "pass overwrite=True to replace it")
def the_store_exists(sdata):
    """Nothing is replaced unasked.

    Choose another path, or pass `overwrite=True`.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)


@refused(TRAINING, ValueError, "is not a training store.*stp.io.write_store makes one")
def a_SpatialData_in_place_of_a_store(sdata, vocabulary):
    """Training reads stores that are written for it: Ensembl ids, two levels of the image, small chunks.

    Write one with {func}`stp.io.write_store`; it is a SpatialData, too.
    """
    sdata.write("slide.zarr")
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary)


@refused(TRAINING, TypeError, "stores is one path.*pass a list of paths")
def one_path_in_place_of_a_list(vocabulary):
    """Training takes a list of stores.

    Put the path into a list, or list a folder: `sorted(Path("stores").glob("*.zarr"))`.
    """
    stp.train.pretrain("slide.zarr", "run", vocabulary=vocabulary)


@refused(TRAINING, ValueError, "there is no store to train on")
def a_pattern_that_matches_no_store(vocabulary):
    """The list of stores is empty, mostly because the pattern it was made from matches nothing.

    Look at the list; relative paths are taken from where Python runs.
    """
    stp.train.pretrain(sorted(Path("stores").glob("*.zarr")), "run", vocabulary=vocabulary)


@refused(TRAINING, ValueError, "needs spot coordinates.*which these stores lack")
def stores_without_what_a_stage_needs(sdata, vocabulary):
    """Neighborhoods need coordinates, alignment needs images; these stores were written of counts alone.

    Write them again with {func}`stp.io.from_anndata`; or train with masked genes alone:
    `PretrainConfig(phases=(Phase("masked"),))`.
    """
    del sdata["table"].obsm["spatial"], sdata["table"].uns["spatialdata_attrs"]
    stp.io.write_store(spatialdata.SpatialData(tables=dict(sdata.tables)), "counts.zarr")
    stp.train.pretrain(["counts.zarr"], "run", vocabulary=vocabulary, model=GENE)


@refused(TRAINING, ValueError, "no spot of 1 stores detects 5000 genes; lower min_genes")
def no_spot_has_enough_genes(sdata, vocabulary):
    """Spots of few genes are left out of training, and here all have few: a panel, or shallow sequencing.

    Lower `min_genes`; for Visium HD take larger bins.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    config = stp.train.PretrainConfig(min_genes=5000)
    stp.train.pretrain(["slide.zarr"], "run", vocabulary=vocabulary, model=GENE, config=config)


@refused(TRAINING, ValueError, "need gene_sets, a GMT file")
def pathways_without_gene_sets():
    """To align images with pathways, their genes must be known.

    Name a GMT file, such as those of MSigDB or Reactome: `gene_sets="hallmark.gmt"`.
    """
    stp.train.AlignConfig(targets="pathways")


@refused(MODELS, FileNotFoundError, "neither on the hub within reach nor in its cache.*path=")
@mock.patch("huggingface_hub.hf_hub_download", mock.Mock(side_effect=LocalEntryNotFoundError("offline")))
def no_network_and_no_weights_in_the_cache():
    """Weights come from the hub of Hugging Face or from its cache, and there is neither.

    Fetch them on a machine with a network and copy the cache or the file: [](howto/cluster.md).
    """
    stp.models.load_backbone("UNI2-h")


@refused(MODELS, ValueError, "no backbone 'resnet50'; choose from")
def an_unknown_backbone():
    """Only pathology encoders that are known with their scale and normalization have a name here.

    Choose one that the message lists, or give any vision transformer of timm as a config: [](howto/backbones.md).
    """
    stp.models.load_backbone("resnet50")


@refused(MODELS, FileNotFoundError, "has no config.json; give a folder written by save_pretrained")
def a_folder_without_a_model():
    """The path is wrong, or the run did not come to its first weights.

    Give a folder that `save_pretrained` or `stp.train` wrote. The published weights of STAMP's authors have another
    form: {func}`stp.models.load_reference`, see [](howto/weights.md).
    """
    stp.models.Stamp.from_pretrained("runs/stamp")


@refused(MODELS, ValueError, "holds a Stamp; load it with that class, not GeneEncoder")
def a_model_of_another_class(model):
    """The folder holds another kind of model.

    Load it with its own class; a part of a Stamp is `model.gene_encoder` or `model.image_encoder`.
    """
    model.save_pretrained("stamp")
    stp.models.GeneEncoder.from_pretrained("stamp")


@refused(MODELS, ValueError, "is truncated or damaged")
def weights_were_cut_off(model):
    """A copy ended early, or the disk was full.

    Copy the folder again.
    """
    model.save_pretrained("stamp")
    os.truncate("stamp/model.safetensors", 10_000)
    stp.models.Stamp.from_pretrained("stamp")


@refused(MODELS, ValueError, "nothing in it was run")
def weights_with_code_in_them():
    """Files of torch.save may run code when they are read; these hold more than tensors, so they are not read.

    Take weights in safetensors. Of a file that you trust save the tensors alone:
    `torch.save(model.state_dict(), path)`.
    """
    torch.save(torch.nn.Linear(2, 2), "weights.bin")
    stp.models.load_backbone("UNI", path="weights.bin")


@refused(RESULTS, KeyError, r"obsm\['stp_tokens'\] is missing; run stp\.tl\.tokenize")
def spots_have_no_tokens(adata, model):
    """Genes are embedded from tokens.

    Run {func}`stp.tl.tokenize` first, with the same model.
    """
    stp.tl.embed_genes(adata, model)


@refused(RESULTS, ValueError, "made with another vocabulary than the model's")
def tokens_are_of_another_vocabulary(adata, model):
    """A token is a number, and means another gene in another vocabulary.

    Tokenize with the model that embeds: `stp.tl.tokenize(adata, model)`.
    """
    stp.tl.tokenize(adata, stp.Vocabulary.from_genes(adata.var_names).fit([adata]))
    stp.tl.embed_genes(adata, model)


@refused(RESULTS, ValueError, "embeddings of different models do not mix")
def embeddings_are_of_two_models(embedded, model):
    """Vectors of two models lie in two spaces; a distance between them means nothing.

    Embed all with one model.
    """
    stp.tl.embed_images(embedded, model)
    stp.tl.fuse(embedded)


@refused(RESULTS, ValueError, 'nothing says which model made.*uns_merge="same"')
def concatenated_tables_lost_their_model(embedded):
    """`anndata.concat` leaves `uns` behind, and with it which model made what.

    Pass `uns_merge="same"`. If that changes nothing, the tables were embedded with different models.
    """
    reference = sc.concat([embedded["table"]] * 2, index_unique="-")
    stp.tl.predict_expression(embedded, reference, genes=["EPCAM"])


@refused(RESULTS, KeyError, "marks no highly variable genes")
def no_genes_are_named(embedded):
    """Without `genes=` the highly variable ones are predicted, and the reference marks none.

    Name genes, or run `scanpy.pp.highly_variable_genes` on a normalized copy of the reference and bring the column
    over. All genes: `genes=reference.var_names`.
    """
    stp.tl.predict_expression(embedded, embedded["table"])


@refused(RESULTS, KeyError, "1 genes are not in the reference")
def a_gene_is_not_measured(embedded):
    """The reference does not measure it under this name.

    Choose from its `var_names`.
    """
    stp.tl.predict_expression(embedded, embedded["table"], genes=["HER2"])


@refused(RESULTS, ValueError, "cannot retrieve 500 neighbors from .* references; lower n_neighbors")
def more_neighbors_than_references(embedded):
    """The reference has fewer spots with an embedding.

    Lower `n_neighbors`, or add slides to the reference.
    """
    stp.tl.predict_expression(embedded, embedded["table"], genes=["EPCAM"], n_neighbors=500)


@refused(RESULTS, KeyError, r"obs\['label'\] is missing; pass label_key= one of")
def there_is_no_such_label(embedded):
    """The table has no such column.

    Pass one of those that the message lists.
    """
    stp.tl.linear_probe(embedded, "label")


@refused(RESULTS, ValueError, "not on disk; call sdata.write")
def results_of_a_slide_that_is_not_on_disk(embedded):
    """Results are added to a SpatialData that is on disk; this one is in memory alone.

    Write it, `sdata.write(path)` or {func}`stp.io.write_store`, and read it from there.
    """
    stp.io.write_results(embedded)


@refused(RESULTS, ValueError, "rows of the table are not those of the store")
def results_of_a_part_of_the_spots(embedded):
    """The table was subset or reordered since it was read, and the store's own rows are never touched.

    Annotate all spots and subset afterwards, or write the subset to a store of its own.
    """
    embedded.write("slide.zarr")
    embedded.tables["table"] = embedded["table"][:10].copy()
    stp.io.write_results(embedded)


def _hung(text: str) -> str:
    return text.replace("\n", "\n  ")


def page(folder: Path) -> str:
    """Write all cases as Markdown, each with what it raises when it is run in a folder."""
    parts = []
    for section in dict.fromkeys(case.section for case in CASES):
        parts.append(f"## {section}\n")
        for case in (case for case in CASES if case.section == section):
            where = folder / case.function.__name__
            where.mkdir()
            error = case.run(where)
            message = re.sub(r" at 0x[0-9a-f]+", "", str(error.args[0])).replace(str(where), "")
            said = textwrap.fill(f"{type(error).__name__}: {message}", 100, break_on_hyphens=False)
            parts += [f"### {case.title}\n", f"```python\n{case.code}\n```\n", f"```text\n{said}\n```\n"]
            cause, remedy = inspect.getdoc(case.function).split("\n\n")
            parts.append(f"Cause\n: {_hung(cause)}\n\nRemedy\n: {_hung(remedy)}\n")
    return "\n".join(parts)
