"""Whether the models of a study can be explained by genes."""

from pathlib import Path

from stp._log import count
from stp._text import text_of
from stp.io._read_cohort import CohortJoin
from stp.metrics._rank_tests import MIN_PATIENTS
from stp.models.published.backbones import BACKBONES
from stp.tables import keys
from stp.tl._slide_effects import MIN_TILES
from stp.tl._slide_models import open_slide_models
from stp.tl._slide_outputs import require_contributions
from stp.workflows.slide_check_targets import ERRORS, Finding
from stp.workflows.slide_config import Study
from stp.workflows.slide_expression import (
    TileStores,
    choose_genes,
    find_references,
    list_faults,
    open_measured,
    read_gene_sets,
)
from stp.workflows.slide_tables import GenesTable


def check_genes(study: Study, join: CohortJoin, models: Path | None) -> list[Finding]:
    """Return why the tiles of a cohort cannot be explained, if the study has a table `[genes]`.

    Parameters
    ----------
    study
        The study.
    join
        The files of the features.
    models
        Folder of slide models that would predict the cohort. Then findings are notes, because it
        can be predicted.
    """
    if study.genes is None:
        return []
    texts = _check_model(study, study.genes, models)
    table = study.cohort
    slides = [slide for slide in join.table[keys.SLIDE_ID] if slide in join.files]
    paths = {slide: join.paths[slide] for slide in slides}
    if not paths:
        texts += _check_encoder(study, study.genes)
    stores = TileStores(paths, table.use_rep, table.table_key)
    try:
        gene_sets = read_gene_sets(study, study.genes)
        references = open_measured(
            study.genes, find_references(study, study.genes), table.table_key
        )
        if references is not None:
            choose_genes(study.genes, gene_sets, references)
        texts += list_faults(study.genes, stores, references)
    except ERRORS as error:
        texts.append(text_of(error))
    if not texts:
        texts = _check_size(join)
    return [Finding("genes", text, is_fault=models is None) for text in texts]


def _check_model(study: Study, table: GenesTable, models: Path | None) -> list[str]:
    """Return why a model has no contributions of tiles, or lacks the target."""
    texts = []
    if models is not None:
        try:
            require_contributions(open_slide_models(models))
        except ERRORS as error:
            texts.append(text_of(error))
    elif study.fit.config.pooling == "transformer":
        texts.append(
            'pooling = "transformer" in [fit] gives no contributions of tiles, so genes cannot '
            'explain them; write pooling = "attention", or leave out [genes]'
        )
    columns = [target.column for target in study.targets]
    if models is None and table.target is not None and columns and table.target not in columns:
        texts.append(
            f"target = {table.target!r} is none of the targets {', '.join(columns)}; correct it"
        )
    return texts


def _check_encoder(study: Study, table: GenesTable) -> list[str]:
    """Return why tiles that are still to be made will have no vectors that predict genes."""
    if study.slides is None or not table.references or study.root != study.output / "tiles":
        return []
    if study.slides.model not in BACKBONES:
        return []
    return [
        f"[slides] model = {study.slides.model!r} makes no aligned vectors, so genes cannot be "
        "predicted; name the Stamp that embedded the references, or leave out reference"
    ]


def _check_size(join: CohortJoin) -> list[str]:
    """Return why a cohort is too small for a test; tiles that are still to be made are enough."""
    slides = join.table[keys.SLIDE_ID]
    is_large = [
        slide not in join.files or join.files[slide].n_tiles >= MIN_TILES for slide in slides
    ]
    n_patients = join.table[keys.PATIENT][is_large].nunique()
    if n_patients >= MIN_PATIENTS:
        return []
    return [
        f"{count(n_patients, 'patient')} have a slide with {MIN_TILES} tiles, and an explanation "
        f"needs {MIN_PATIENTS}; add patients, or leave out [genes]"
    ]
