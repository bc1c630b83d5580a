"""Draw for each slide where a prediction comes from: maps, top tiles, and GeoJSON for QuPath."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp import io, pl, tl
from stp._atomic import write_atomically, write_text_atomically
from stp._log import count, logger, preview
from stp._progress import track
from stp._version import __version__
from stp.io._cohort_files import name_of_slide
from stp.models.slide import SlideModel
from stp.tables import keys
from stp.tl._slide_models import open_slide_models
from stp.workflows.slide_config import Study
from stp.workflows.slide_paths import find_slides
from stp.workflows.slide_steps import INTERNAL, find_models, open_predictions

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

MAPS = "maps"  # folder of the results
ROW = (keys.SLIDE_ID, keys.PATIENT, keys.PATH)
DPI = 150
CLOSE = 0.02  # difference of a prediction in another precision


@dataclass(frozen=True)
class SlideMap:
    """A slide to draw.

    Parameters
    ----------
    slide
        Id of the slide.
    path
        Its tile store or feature file.
    others
        Those of the other slides of the same patient.
    model
        The model that predicted the patient.
    prediction
        Outputs of the patient (n_outputs,).
    stem
        Path of its files without suffix.
    """

    slide: str
    path: Path
    others: list[Path]
    model: SlideModel
    prediction: np.ndarray
    stem: Path


def draw(
    study: Study,
    *,
    name: str = INTERNAL,
    slides: Sequence[str] = (),
    models: Path | None = None,
    um_per_px: float | None = None,
) -> dict[str, str]:
    """Draw slides of predicted patients; those that are finished are skipped.

    Each slide gets a map of its attention and contributions as PNG, its tiles with the highest and
    lowest contribution as PNG, and both numbers of all tiles as GeoJSON. The map is that of the
    prediction: the same model and the same tiles.

    Parameters
    ----------
    study
        The study.
    name
        Name of the predictions.
    slides
        Ids of slides; all if there are none.
    models
        Folder of one model, if several predicted each patient.
    um_per_px
        µm per pixel of all slides at full resolution, if their features do not record it.

    Returns
    -------
    Why slides could not be drawn, by id of the slide.
    """
    cohort, record = open_predictions(study, name)
    jobs = _list_maps(study, cohort, record, name, slides, models)
    if um_per_px is None and study.slides is not None:
        um_per_px = study.slides.um_per_px
    logger.info(f"draw {name}: {count(len(jobs), 'slide')} into {study.output / MAPS / name}")
    failures = {}
    n_skipped = 0
    for job in track(jobs, "draw slides", "slide"):
        inputs = [__version__, record["fingerprint"], job.model.digest, um_per_px]
        done = job.stem.with_name(f"{job.stem.name}.json")
        if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["inputs"] == inputs:
            n_skipped += 1
            continue
        try:
            notes = _draw(study, job, um_per_px)
        except (ValueError, KeyError, OSError) as error:
            failures[job.slide] = str(error.args[0] if isinstance(error, KeyError) else error)
            continue
        write_text_atomically(done, json.dumps({"inputs": inputs, "notes": notes}, indent=2))
    n_drawn = len(jobs) - n_skipped - len(failures)
    logger.info(f"draw: {n_drawn:,} drawn, {n_skipped:,} skipped, {len(failures):,} failed")
    return failures


def _list_maps(
    study: Study,
    cohort: "AnnData",
    record: dict[str, Any],
    name: str,
    slides: Sequence[str],
    models: Path | None,
) -> list[SlideMap]:
    """Return the slides to draw, each with the model that predicted it."""
    unknown = sorted(set(slides) - set(cohort.obs[keys.SLIDE_ID].astype(str)))
    if unknown:
        raise ValueError(f"the predictions {name!r} have no slide {preview(unknown)}")
    folder = Path(record["models"]) if models is None else find_models(study, models)
    opened = open_slide_models(folder)
    n_models = cohort.obs[keys.n_models(keys.SLIDES)].to_numpy()
    paths: dict[str, list[Path]] = {}
    for patient, path in zip(cohort.obs[keys.PATIENT], cohort.obs[keys.PATH], strict=True):
        paths.setdefault(str(patient), []).append(Path(path))
    jobs = []
    for row, (slide, patient, path) in enumerate(
        zip(*(cohort.obs[key].astype(str) for key in ROW), strict=True)
    ):
        if slides and slide not in slides:
            continue
        if len(opened) > 1 and n_models[row] != 1:
            raise ValueError(
                f"{n_models[row]} models predicted slide {slide!r}, and each has its own map; "
                "give --models the folder of one, such as that of `stp slides fit`"
            )
        number = int(cohort.obs[keys.FOLD].iloc[row]) if len(opened) > 1 else 0
        model = next((m for m in opened if m.name == f"fold_{number}"), opened[0])
        stem = study.output / MAPS / name / slide.replace("/", "_").replace("\\", "_")
        others = [other for other in paths[patient] if other != Path(path)]
        prediction = np.asarray(cohort.obsm[keys.SLIDES][row])
        jobs.append(SlideMap(slide, Path(path), others, model, prediction, stem))
    return jobs


def _draw(study: Study, job: SlideMap, um_per_px: float | None) -> list[str]:
    """Write the files of a slide, and return why one of them is missing."""
    import matplotlib.pyplot as plt

    sdata, table_key = _open(study, job.path)
    tl.score_tiles(
        sdata,
        job.model,
        other_slides=job.others,
        device=study.fit.config.device,
        table_key=table_key,
    )
    result = sdata.tables[table_key].uns[keys.ATTENTION]
    values = result["predictions"]["value"].to_numpy()
    if not np.allclose(values, job.prediction, rtol=CLOSE, atol=CLOSE):
        raise ValueError(
            f"the tiles of {job.slide} give {values.round(3).tolist()}, and its prediction is "
            f"{job.prediction.round(3).tolist()}: features or model have changed, or --models is "
            "another one; run `stp slides predict` again"
        )
    job.stem.parent.mkdir(parents=True, exist_ok=True)
    notes = []
    figure = pl.attention(sdata, table_key=table_key, show=False, return_fig=True)
    _save(figure, job.stem.with_name(f"{job.stem.name}.png"))
    try:
        figure = pl.tiles(
            sdata,
            image=_find_pixels(study, job),
            um_per_px=um_per_px,
            table_key=table_key,
            show=False,
            return_fig=True,
        )
        _save(figure, job.stem.with_name(f"{job.stem.name}-tiles.png"))
    except (ValueError, OSError) as error:
        notes.append(f"no picture of tiles: {_name_option(error)}")
    try:
        io.write_geojson(
            sdata,
            job.stem.with_name(f"{job.stem.name}.geojson"),
            um_per_px=um_per_px,
            table_key=table_key,
            overwrite=True,
        )
    except ValueError as error:
        notes.append(f"no GeoJSON: {_name_option(error)}")
    plt.close("all")
    for note in notes:
        logger.info(f"{job.slide}: {note}")
    return notes


def _name_option(error: Exception) -> str:
    """Return a message with the option of the command line instead of the argument."""
    return str(error).replace("pass um_per_px=", "give --um-per-px")


def _open(study: Study, path: Path) -> "tuple[SpatialData, str]":
    """Return the tiles of a slide, and the name of their table."""
    import spatialdata

    if path.is_dir():
        return spatialdata.read_zarr(path), study.cohort.table_key
    return io.read_features(path), keys.TABLE


def _find_pixels(study: Study, job: SlideMap) -> Path | None:
    """Return the file of a slide whose features are of another tool; a tile store knows its own."""
    if job.path.is_dir() or study.slides is None:
        return None
    name = name_of_slide(job.slide)
    files = [file for file in find_slides(study, study.slides) if name_of_slide(file.name) == name]
    return files[0] if len(files) == 1 else None


def _save(figure: Any, path: Path) -> None:
    write_atomically(
        path, lambda file: figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight")
    )
