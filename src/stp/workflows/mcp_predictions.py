"""All paths that predictions of a study lead to, checked before an agent draws or explains them."""

from contextlib import suppress
from pathlib import Path

from stp.tables import keys
from stp.tables.cohort import features_record
from stp.workflows.mcp_paths import Root, require_name
from stp.workflows.mcp_studies import check_models, check_path, check_store
from stp.workflows.slide_config import Study
from stp.workflows.slide_paths import find_slides
from stp.workflows.slide_steps import PREDICTIONS, read_record


def check_explained(root: Root, study: Study, name: str) -> None:
    """Check what is read for predictions that are explained, and the stores that get genes.

    Raises
    ------
    OutsideError
        A path leads outside, or the name of a table or of features is that of a path.
    """
    for path in check_maps(root, study, name):
        if path.is_dir():
            check_store(root, path)


def check_maps(root: Root, study: Study, name: str) -> list[Path]:
    """Check the models and all files of the slides of predictions, and return those with tiles.

    Raises
    ------
    OutsideError
        One of them leads outside, or the name of a table or of features is that of a path.
    """
    import anndata

    file = study.output / PREDICTIONS / f"{name}.h5ad"
    record = read_record(file)
    if not record:
        return []  # there is nothing to draw, which the step says
    check_models(root, root.inside(Path.cwd(), str(record["models"]), f"models of {file}"))
    cohort = anndata.read_h5ad(file)
    features = features_record(cohort)
    require_name(str(features["table_key"]), f"table_key of {file}")
    require_name(str(features["use_rep"]), f"use_rep of {file}")
    paths = []
    for slide, text in cohort.obs[[keys.SLIDE_ID, keys.PATH]].astype(str).to_numpy():
        path = check_path(root, Path.cwd(), text, f"the features of slide {slide!r}")
        if path.is_dir():
            _check_source_slide(root, path)
        paths.append(path)
    if study.slides is not None:
        with suppress(ValueError):  # nothing matches, so that there are no pixels
            for path in find_slides(study, study.slides):
                root.check_slide(path, "[slides] wsi")
    return paths


def _check_source_slide(root: Root, store: Path) -> None:
    """Check the slide that a tile store names, whose pixels are drawn."""
    import zarr

    slide = zarr.open_group(store, mode="r", use_consolidated=False).attrs.get(keys.SLIDE, {})
    if isinstance(slide.get("path"), str):
        what = f"the slide of {store}"
        root.check_slide(root.inside(Path.cwd(), slide["path"], what), what)
