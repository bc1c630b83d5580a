"""Embeddings and predictions."""

import anndata
import scanpy as sc
from tests.bad_input.case import refused

import stp


@refused(KeyError, r"obsm\['stp_tokens'\] is missing; run stp\.tl\.tokenize")
def spots_have_no_tokens(adata, model):
    """Genes are embedded from tokens.

    Run {func}`stp.tl.tokenize` first, with the same model.
    """
    stp.tl.embed_genes(adata, model)


@refused(ValueError, "made with another vocabulary than the model's")
def tokens_are_of_another_vocabulary(adata, model):
    """A token is a number. It means another gene in another vocabulary.

    Tokenize with the model that embeds: `stp.tl.tokenize(adata, model)`.
    """
    stp.tl.tokenize(adata, stp.Vocabulary.from_genes(adata.var_names).fit([adata]))
    stp.tl.embed_genes(adata, model)


@refused(ValueError, "anndata.concat cuts or fills tables of different width")
def tokens_were_cut_by_anndata_concat(adata, model):
    """Tables have as many columns of tokens as their longest spot, and anndata drops some.

    Combine slides with {func}`stp.get.concat`, which pads the tokens.
    """
    stp.tl.tokenize(adata, model)
    narrow = adata[:5].copy()
    narrow.obsm["stp_tokens"] = narrow.obsm["stp_tokens"][:, :3]
    joined = anndata.concat([narrow, adata[5:]], uns_merge="first")
    stp.tl.embed_genes(joined, model)


@refused(ValueError, r"no spot lies in crop_coord=.*; spots reach from x = ")
def a_part_to_draw_has_no_spot(adata):
    """The part to draw is in µm from the corner of the image, or in the unit of the coordinates.

    Pass left, right, top and bottom in this unit.
    """
    stp.pl.spots(adata, adata.var_names[0], crop_coord=(-9, -8, -9, -8))


@refused(ValueError, "embeddings of different models do not mix")
def embeddings_are_of_two_models(embedded, model):
    """Embeddings of two models lie in two spaces. Distances between them mean nothing.

    Embed all spots with one model.
    """
    stp.tl.embed_images(embedded, model)
    stp.tl.fuse(embedded)


@refused(ValueError, r"the model that made .* is not recorded.*stp\.get\.concat")
def concatenated_tables_lost_their_model(embedded):
    """`anndata.concat` drops `uns`, which names the model of each embedding.

    Combine the tables with {func}`stp.get.concat`. It refuses tables that were embedded with
    different models.
    """
    reference = sc.concat([embedded["table"]] * 2, index_unique="-")
    stp.tl.predict_expression(embedded, reference, genes=["EPCAM"])


@refused(KeyError, "marks no highly variable genes")
def no_genes_are_named(embedded):
    """Without `genes=`, the highly variable genes are predicted. The reference does not mark any.

    Pass `genes=`, for example `genes=reference.var_names` for all genes. Or run
    `scanpy.pp.highly_variable_genes` on a normalized copy of the reference, and copy its column
    `highly_variable` into the reference.
    """
    stp.tl.predict_expression(embedded, embedded["table"])


@refused(KeyError, "1 gene is not in the reference.*did you mean 'ERBB2'")
def a_gene_is_not_measured(embedded):
    """The reference has no gene of this name.

    The message names a similar gene. Choose from the genes of the reference, by symbol or Ensembl
    id.
    """
    stp.tl.predict_expression(embedded, embedded["table"], genes=["ERRB2"])


@refused(ValueError, "'ERBB2' and 'HER2' are one gene; name each gene once")
def a_gene_is_named_twice(embedded):
    """Genes are found by their id, their symbol and former symbols, so two names may be one gene.

    Name each gene once.
    """
    stp.tl.predict_expression(embedded, embedded["table"], genes=["ERBB2", "HER2"])


@refused(KeyError, "2 genes are not in the reference.*did you mean 'ERBB2' for 'ERRB2'")
def most_genes_of_a_program_are_not_measured(embedded, reference):
    """A query needs genes with at least half of the weights of its program.

    The message names similar genes. If fewer genes are missing, a warning names them, and they are
    left out.
    """
    stp.tl.query_by_genes(embedded, ["EPCAM", "ERRB2", "ERBB2 protein"], reference=reference)


@refused(ValueError, "the weight of 'EPCAM' is 0")
def a_gene_of_a_program_has_no_weight(embedded, reference):
    """A gene with the weight 0 has no effect, so the weight may be an error.

    Leave the gene out, or give it a weight.
    """
    stp.tl.query_by_genes(embedded, {"EPCAM": 0, "ERBB2": 1}, reference=reference)


@refused(ValueError, "holds spots of the slide that is searched")
def a_slide_is_searched_with_its_own_spots(embedded):
    """A spot would find itself, or its own genes, and the score would look better than it is.

    Leave this slide out of the reference. Slides are compared by their names, or without names by
    their spots.
    """
    stp.tl.query_by_genes(embedded, ["EPCAM"], reference=embedded["table"])


@refused(KeyError, "no tile 'tile_1'; choose from the table's obs_names")
def a_tile_is_not_in_the_table(embedded, reference):
    """A query by an image needs the name of a tile.

    Choose it from `obs_names` of the table.
    """
    stp.tl.query_by_image(embedded, "tile_1", reference=reference)


@refused(ValueError, "embeddings of different models do not mix: X_stp_images of slide 0 by")
def slides_to_combine_are_of_two_models(embedded, model):
    """{func}`stp.get.concat` keeps the record of the model, so all slides need one model.

    Embed all slides with one model.
    """
    other = stp.tl.embed_images(embedded, model, copy=True)
    stp.get.concat([embedded, other])


@refused(
    ValueError,
    r"gene names of reference 0 are not unique, e\.g\. \['DCN'\]; call its var_names_make_unique",
)
def gene_names_are_not_unique(embedded):
    """Gene symbols are not unique: the reference has two columns of this name.

    Run `reference.var_names_make_unique()`, which adds a number to the second name, or sum the
    columns.
    """
    reference = embedded["table"].copy()
    reference.var_names = [*reference.var_names[:-1], "DCN"]
    stp.tl.predict_expression(embedded, reference, genes=["EPCAM"])


@refused(ValueError, "cannot retrieve 500 neighbors from .* references; lower n_neighbors")
def more_neighbors_than_references(embedded):
    """The reference has fewer spots with an embedding than `n_neighbors`.

    Lower `n_neighbors`, or add slides to the reference.
    """
    stp.tl.predict_expression(embedded, embedded["table"], genes=["EPCAM"], n_neighbors=500)


@refused(KeyError, r"obs\['label'\] is missing; pass label_key= one of")
def the_label_does_not_exist(embedded):
    """The table has no such column.

    Pass one of the columns that the message lists.
    """
    stp.tl.linear_probe(embedded, "label")


@refused(ValueError, "not on disk; call sdata.write")
def results_of_a_slide_that_is_not_on_disk(embedded):
    """Results can only be added to a SpatialData on disk. This one is only in memory.

    Write it with `sdata.write(path)` or {func}`stp.io.write_store`, and read it again.
    """
    stp.io.write_results(embedded)


@refused(ValueError, "is remote, and this is written on local disks only")
def results_of_a_remote_slide(embedded):
    """Results cannot be added to a store behind an address such as `s3://` or `https://`.

    Download the store, add the results, and upload it again.
    """
    embedded.path = "s3://bucket/slide.zarr"
    stp.io.write_results(embedded)


@refused(ValueError, "no store at")
def embedding_a_store_that_is_not_there(model):
    """All stores are checked before the first is embedded, and one error lists all that is wrong.

    Correct the paths, or leave these stores out.
    """
    stp.io.embed_stores(["nowhere.zarr"], model, manifest="embedded.jsonl")


@refused(ValueError, "rows of the table are not those of the store")
def results_of_a_part_of_the_spots(embedded):
    """The table was subset or reordered after it was read. The rows of the store never change.

    Annotate all spots and subset afterwards, or write the subset to a new store.
    """
    embedded.write("slide.zarr")
    embedded.tables["table"] = embedded["table"][:10].copy()
    stp.io.write_results(embedded)


@refused(ValueError, r"obsm\['X_stp_images'\] has infinite values, or NaN in a part of the columns")
def stored_features_are_not_finite(embedded):
    """Features in `obsm` have infinite values, or NaN in a part of a row. A spot without features
    has NaN in its whole row, and is left out.

    Make these features again.
    """
    table = embedded.tables["table"]
    table.obsm["X_stp_images"][7, 3] = float("inf")
    stp.tl.fuse(embedded)


@refused(KeyError, r"'EPCAMM' is neither a column of adata\.obs nor a gene .* did you mean")
def the_color_of_spots_does_not_exist(adata):
    """Spots are colored by a column of `obs`, a measured gene or a predicted gene. None has this
    name.

    Pass one of the similar names that the message lists, or look at `adata.obs` and
    `adata.var_names`.
    """
    stp.pl.spots(adata, "EPCAMM")


@refused(ValueError, "'EPCAM' is a column of adata.obs and a gene; rename the column")
def the_color_of_spots_is_a_column_and_a_gene(adata):
    """A column of `obs` has the name of a gene, so it is not clear which of them is meant.

    Rename the column: `adata.obs = adata.obs.rename(columns={"EPCAM": "EPCAM_score"})`.
    """
    adata.obs["EPCAM"] = 1.0
    stp.pl.spots(adata, "EPCAM")
