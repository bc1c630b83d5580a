"""Explain slide models by the predicted genes of the tiles that decide their predictions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp._log import count, preview, warn
from stp.metrics._rank_tests import MIN_PATIENTS
from stp.models.slide import SlideModel
from stp.tables import keys
from stp.tables.cohort import bag_sources
from stp.tables.table import record, table_to_annotate
from stp.tl._gene_effects import GeneEffects, effects_table
from stp.tl._model_checks import find_new, predictions_table
from stp.tl._predict_slides import group_bags
from stp.tl._slide_effects import MIN_TILES, SlideEffects, measure_slides
from stp.tl._slide_models import AnyModel, find_unseen, open_slide_models, require_fit
from stp.tl._slide_outputs import (
    HIGH,
    LOW,
    ExplainedOutput,
    list_outputs,
    require_contributions,
)
from stp.tl._tile_genes import open_tile_genes
from stp.train.slide_cohort import read_features

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ALL = "all"
MIN_PERMUTATIONS = 100


def explain_slides(
    cohort: "AnnData",
    model: AnyModel,
    *,
    target: str | None = None,
    expression_key: str = keys.EXPRESSION,
    gene_sets: Mapping[str, Sequence[str]] | None = None,
    n_permutations: int = 500,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    key_added: str = keys.SLIDE_GENES,
    copy: bool = False,
) -> "AnnData | None":
    """Find the genes behind a slide model: those that are high in the tiles it decides by.

    In each slide, the contribution of a tile to the prediction is correlated with each predicted
    gene of the tile. Genes whose correlations have one sign over patients explain the model. They
    are predicted from the image, so they say what tissue the model looks at. They do not show that
    a gene causes the class.

    Parameters
    ----------
    cohort
        Table with a row per slide, made by :func:`stp.io.read_cohort` from tile stores. Their
        tables have genes of :func:`stp.tl.predict_expression` or
        :func:`stp.tl.regress_expression`.
    model
        A slide model, or the `output_dir` of :func:`stp.train.fit_slides` or
        :func:`stp.train.cross_validate_slides`. Of a cross-validation, a patient is explained by
        the models that have never seen it; contributions of several are averaged.
    target
        Name of the target. By default all targets are explained.
    expression_key
        Name of the predicted genes in `obsm` of each tile table.
    gene_sets
        Genes of each set, such as :func:`stp.io.read_gene_sets` returns, by symbol or Ensembl id.
        Sets are then explained instead of genes, by the mean of their genes.
    n_permutations
        Largest number of shifted maps per slide, at least 100.
    seed
        Random seed for the shifts and for the resampled patients.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    progress
        Show a progress bar, or lines of the log if there is no terminal.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `cohort.uns['stp_slide_genes' | key_added]` : dict
        `genes`, a row per output, side and gene, see below; `slides`, a row per slide: patient,
        `n_tiles`, `n_near`, `share_far`, `n_shifts`, whether it is used, and why not;
        `sides`, a row per slide and output: the predicted side; `predictions`, a row per output:
        whether the model predicts patients it has never seen (`p`, `n_patients`, `note`);
        `share_far` of all tiles; `columns`, the names of the genes; `params`; `models`, their
        names and digests; `units`; `expression_model`; `version` of stp.
    `cohort.obsm['stp_slide_genes' | key_added]` : (n_slides, n_outputs * n_genes) float32
        Correlation in each slide, output by output, genes in the order of `uns[...]['columns']`;
        NaN for slides that are not used.

    Raises
    ------
    FileNotFoundError
        Features are no longer at their path, or a folder has no model.
    KeyError
        Tile tables have no predicted genes or no places, or there is no such target.
    ValueError
        A model has pooling="transformer"; features are not those of the training; predictions of
        slides differ in genes, units or model; tiles lie on no grid; or fewer than 6 patients have
        a slide with 20 near tiles.

    Notes
    -----
    **Genes.** `effect` is the Spearman correlation over tiles that are not far from all references,
    as mean over patients; a patient with several slides counts once. `low` and `high` are its 95 %
    interval from 1,000 resamples of patients. `share_same_sign` is the share of slides with the
    sign of the effect. Rows are sorted by the size of the effect.

    **Outputs.** Of two classes, contributions are to the log-odds of the positive class (or else
    the first). Of more classes they are to the logit of each class above the mean of all. Of
    survival they are to the mean log-odds of the event over the intervals: genes of high risk have
    positive effects.

    **Sides.** Each output is explained in "all" patients, and in those that are predicted "high"
    (that class; a value above the mean, or a risk above the median of the training) and "low" (all
    others) if there are 6 of them. A prediction on the cut, or a model without a recorded median
    risk, is on neither side and enters "all" only.

    **Null distribution.** Neighboring tiles resemble each other, so the contributions are shifted
    over the grid of tiles, and correlated again. The rectangle around the tissue wraps around. Only
    pairs of tiles count in which both have tissue and are near, and only shifts with a quarter of
    all pairs. A shifted map has fewer pairs than the true one, so its correlation varies more, and
    the test is conservative. A slide's correlation minus the mean of its shifts, divided by their
    standard deviation, enters Wilcoxon's signed-rank test over patients: `p`, two-sided.

    **A model that predicts nothing** also has maps, and genes that go with them. So `q` also asks
    if the predictions of patients that the model has never seen rise with their labels, by a rank
    test within the patients of each model (of survival, of martingale residuals). `q` is the larger
    of both p-values after Benjamini and Hochberg, within an output and a side. Without labels or
    without unseen patients, `q` is of `p` alone, and a warning says so.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> slide_model = stp.train.fit_slides(cohort, "runs/map", targets=target, config=config)
    >>> stp.tl.explain_slides(cohort, slide_model)
    Traceback (most recent call last):
    ValueError: 13 slides of the cohort are feature files, which have no predicted genes: ...
    """
    cohort = table_to_annotate(cohort, keys.TABLE, copy)
    check_permutations(n_permutations)
    models = open_slide_models(model)
    require_contributions(models)
    outputs = list_outputs(models[0].config, target)
    sources = bag_sources(cohort)
    columns = open_tile_genes(sources, expression_key, gene_sets)
    bags = group_bags(cohort)
    require_fit(models, read_features(cohort))
    is_used = _choose_models(models, list(bags))
    effects = measure_slides(
        bags,
        models,
        is_used,
        outputs,
        columns,
        expression_key,
        n_shifts=n_permutations,
        seed=seed,
        device=device,
        is_shown=progress,
    )
    slides = effects.slides_table(columns.has_far)
    _require_patients(slides)
    patients = np.array(list(bags), object)
    is_new = find_new(models[0], list(bags)) if len(models) == 1 else np.ones(len(bags), bool)
    strata = np.unique(is_used, axis=0, return_inverse=True)[1].ravel()
    predictions = predictions_table(
        cohort, outputs, patients[is_new].tolist(), effects.scores[is_new], strata[is_new]
    )
    genes = _describe_genes(outputs, effects, columns.names, predictions, seed)
    order = [effects.slides.index(source.slide) for source in sources]
    values = np.concatenate([effects.correlation[:, n] for n in range(len(outputs))], axis=1)
    cohort.obsm[key_added] = values[order].astype(np.float32)
    n_far = int(effects.n_far.sum())
    record(
        cohort,
        key_added,
        {
            "target": target,
            "expression_key": expression_key,
            "has_gene_sets": gene_sets is not None,
            "n_permutations": n_permutations,
            "seed": seed,
        },
        genes=genes,
        slides=slides,
        sides=effects.sides_table(outputs),
        predictions=predictions,
        columns=columns.names,
        share_far=n_far / int(effects.n_tiles.sum()) if columns.has_far else np.nan,
        models={
            "names": [one.name for one in models],
            "digests": [one.digest for one in models],
        },
        units=columns.units,
        expression_model=columns.model,
    )
    return cohort if copy else None


def check_permutations(n_permutations: int) -> None:
    """Raise ValueError if a null distribution would have too few shifted maps."""
    if n_permutations < MIN_PERMUTATIONS:
        raise ValueError(
            f"n_permutations must be at least {MIN_PERMUTATIONS}, not {n_permutations}"
        )


def _choose_models(models: Sequence[SlideModel], patients: list[str]) -> np.ndarray:
    """Return which models (n_patients, n_models) explain which patients.

    One model explains all. Of several, those that have never seen a patient do.
    """
    if len(models) == 1:
        return np.ones((len(patients), 1), bool)
    return find_unseen(models, patients)


def _require_patients(slides: "pd.DataFrame") -> None:
    """Raise ValueError if too few patients are left, and warn of slides that are not used."""
    is_used = slides["is_used"].to_numpy(dtype=bool)
    n_patients = slides["patient"][is_used].nunique()
    left_out = slides.index[~is_used]
    if n_patients < MIN_PATIENTS:
        reasons = ", ".join(sorted(set(slides["reason"]) - {""})) or "the cohort is small"
        raise ValueError(
            f"{count(n_patients, 'patient')} can be explained, and a signed-rank test needs "
            f"{MIN_PATIENTS} with {MIN_TILES} near tiles in a slide ({reasons}); add patients, or "
            "references that are nearer to their tissue"
        )
    if len(left_out):
        warn(
            f"{count(len(left_out), 'slide')} of {len(slides)} are left out: {preview(left_out)}; "
            "the reason is in uns[...]['slides']"
        )


def _describe_genes(
    outputs: Sequence[ExplainedOutput],
    effects: SlideEffects,
    genes: list[str],
    predictions: "pd.DataFrame",
    seed: int,
) -> "pd.DataFrame":
    """Return a row per output, side and gene."""
    import pandas as pd

    frames = []
    for number, output in enumerate(outputs):
        model_p = float(predictions["p"].iloc[number])
        is_used = effects.is_used
        whole = GeneEffects(
            effects.correlation[:, number], effects.standardized[:, number], effects.patient
        )
        for side in (ALL, HIGH, LOW):
            is_inside = is_used if side == ALL else is_used & (effects.sides[:, number] == side)
            part = whole.of(is_inside)
            if part.n_patients < MIN_PATIENTS:
                continue
            table = effects_table(part, genes, model_p, seed)
            table.insert(0, "side", side)
            table.insert(0, "output", output.label)
            table.insert(0, "target", output.target.name)
            frames.append(table)
    table = pd.concat(frames, ignore_index=True)
    table.index = table.index.astype(str)
    return table
