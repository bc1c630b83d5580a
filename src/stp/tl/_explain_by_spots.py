"""Explain slide models by measured genes: score measured spots by their aligned gene vectors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp.tables import keys
from stp.tables.profiles import check_unique, units_of
from stp.tables.references import name_slides
from stp.tables.table import record, table_to_annotate
from stp.tl._embed_shared import model_record
from stp.tl._explain_slides import check_permutations
from stp.tl._model_checks import check_cohort
from stp.tl._slide_models import AnyModel, open_slide_model
from stp.tl._slide_outputs import list_outputs, require_contributions
from stp.tl._spot_contributions import (
    describe_agreement,
    read_vectors,
    require_agreement,
    score_spots,
)
from stp.tl._spot_effects import MeasuredGenes, describe_genes, rank_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def explain_by_spots(
    adata: "AnnData | SpatialData",
    model: AnyModel,
    *,
    target: str | None = None,
    use_rep: str = "X_stp_genes_aligned",
    image_rep: str = "X_stp_images_aligned",
    layer: str | None = None,
    slide_key: str | None = None,
    gene_sets: Mapping[str, Sequence[str]] | None = None,
    cohort: "AnnData | None" = None,
    n_permutations: int = 500,
    seed: int = 0,
    device: str | None = None,
    table_key: str = "table",
    key_added: str = keys.SPOT_GENES,
    copy: bool = False,
) -> "AnnData | None":
    """Find the measured genes behind a slide model, by scoring measured spots with it.

    A slide model that was trained on aligned image vectors also reads aligned gene vectors of the
    same Stamp, because both lie in one space. It scores measured spots by their genes. Measured
    genes are then ranked by their correlation with the contribution of the spot.

    Parameters
    ----------
    adata
        Table of measured spots with aligned vectors of genes and of images, both of one Stamp, and
        raw counts. It may have several slides.
    model
        A slide model that was trained on aligned image vectors, or the `output_dir` of
        :func:`stp.train.fit_slides`.
    target
        Name of the target. By default all targets are explained.
    use_rep
        Name of the aligned gene vectors in `obsm`.
    image_rep
        Name of the aligned image vectors in `obsm`, with which gene vectors must agree.
    layer
        Layer with the measured values; by default `X`. Raw counts become log1p of counts per
        10,000, other values are used as they are.
    slide_key
        Column of `obs` with slides; by default a slide is a region that the table of a SpatialData
        annotates, or else the whole table.
    gene_sets
        Genes of each set, such as :func:`stp.io.read_gene_sets` returns, by symbol or Ensembl id.
        Sets are then explained instead of genes, by the mean of their genes.
    cohort
        Table with a row per slide, labels, and the features that the model reads, of patients that
        it has never seen. With it, `q` also asks if the model predicts them.
    n_permutations
        Largest number of shifted maps per slide, at least 100.
    seed
        Random seed for the shifts.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.uns['stp_spot_genes' | key_added]` : dict
        `agreement`, a row per output and slide: rank correlation of the contributions by genes and
        by images over the `n_spots` that have both, written even if the call ends with an error;
        `genes`, a row per output and gene, strongest first: `effect`, the Spearman correlation as
        mean over slides, `low` and `high` over slides if there are 6, `share_same_sign`, `p`, `q`,
        `n_slides`; `predictions`, a row per output: whether the model predicts the cohort;
        `outputs`, the names of the columns of `obsm`; `units`;
        `params`; `model`; `version` of stp.
    `adata.obsm['stp_spot_genes' | key_added]` : (n, n_outputs) float32
        Contribution of each spot to each output by its genes; NaN without a vector.

    Raises
    ------
    KeyError
        Vectors are missing, there is no such target, or no gene of the sets is measured.
    ValueError
        The model has pooling="transformer", or was trained on other features than those of the
        Stamp of these vectors; the mean agreement of an output is below 0.2; no slide has 20 spots;
        counts are not raw; or spots lie on no lattice.

    Notes
    -----
    **Agreement.** The road from genes to the slide model is only as good as the alignment of the
    Stamp. So the spots are scored twice, by genes and by images. If the mean rank correlation of
    both over slides is below 0.2, less than 4 % of the order is shared, and an error closes this
    road. Below 0.4 a warning says so. Each slide counts as one bag. Attention is computed for genes
    and for images by itself.

    **Test.** `p` says if the correlations are larger than those of maps that are shifted over the
    lattice of spots, as in :func:`stp.tl.explain_slides`, with independent shifts in each slide. It
    is about these slides, not about other patients. `q` is that after Benjamini and Hochberg. With
    a `cohort`, the larger of `p` and the p-value of its predictions is adjusted. Without one, a
    warning says that a model of shuffled labels would have such genes too. Genes that fewer than 10
    spots of a slide detect have no effect in it.

    Examples
    --------
    >>> stp.tl.tokenize(sdata, model)
    >>> stp.tl.embed_genes(sdata, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> features = stp.models.SlideFeatures(
    ...     model.config.projection_width, "Stamp", "Stamp", "0" * 64
    ... )
    >>> target = stp.models.SlideTarget("classes", "EGFR", ("mutated", "wild type"))
    >>> config = stp.models.SlideModelConfig(features, (target,))
    >>> stp.tl.explain_by_spots(sdata, stp.models.SlideModel(config))
    Traceback (most recent call last):
    ValueError: the slide model was trained on Stamp (000000000000, ...
    """
    table = table_to_annotate(adata, table_key, copy)
    check_permutations(n_permutations)
    slide_model = open_slide_model(model)
    require_contributions([slide_model])
    outputs = list_outputs(slide_model.config, target)
    check_unique(table, "adata")
    units = units_of(table, layer)
    genes = MeasuredGenes.of(table, layer, gene_sets)
    vectors = read_vectors(table, slide_model, use_rep, image_rep)
    slides = name_slides({"adata": table}, slide_key)["adata"]
    spots = score_spots(table, slide_model, outputs, vectors, slides, device)
    params = {
        "target": target,
        "use_rep": use_rep,
        "image_rep": image_rep,
        "layer": layer,
        "slide_key": slide_key,
        "has_gene_sets": gene_sets is not None,
        "n_permutations": n_permutations,
        "seed": seed,
    }
    agreement = describe_agreement(spots, outputs)
    made_by = model_record(slide_model)
    table.obsm.pop(key_added, None)
    record(table, key_added, params, agreement=agreement, model=made_by)
    require_agreement(spots, outputs)
    predictions = check_cohort(cohort, outputs, slide_model, device)
    effects = rank_genes(spots, genes, n_permutations, seed)
    contributions = np.full((table.n_obs, len(outputs)), np.nan, np.float32)
    for slide in spots:
        contributions[slide.rows] = slide.contributions
    table.obsm[key_added] = contributions
    record(
        table,
        key_added,
        params,
        agreement=agreement,
        genes=describe_genes(outputs, genes, effects, predictions["p"].to_numpy(), seed),
        predictions=predictions,
        outputs=[f"{output.target.name}: {output.label}" for output in outputs],
        units=units,
        model=made_by,
    )
    return table if copy else None
