"""The slide models of a prediction: open them, and check that they fit each other and a cohort."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stp._log import count, preview, warn
from stp.images.scale import TOLERANCE
from stp.models.saved.description import CONFIG
from stp.models.slide import SlideModel
from stp.models.slide_config import SlideFeatures
from stp.train.cross_validation import FOLDS, MODELS

AnyModel = SlideModel | str | Path
BAG_FACTOR = 2  # bags this much smaller or larger than those of the training are warned of


def open_slide_models(models: AnyModel | Sequence[AnyModel]) -> list[SlideModel]:
    """Return slide models, given as such, as their folders, or as folders of cross-validations.

    Raises
    ------
    FileNotFoundError
        A folder has neither a model nor a cross-validation.
    TypeError
        Something else was given.
    ValueError
        There is no model, one is there twice, or targets differ.
    """
    items = [models] if isinstance(models, AnyModel) else list(models)
    opened: list[SlideModel] = []
    for item in items:
        if isinstance(item, SlideModel):
            opened.append(item)
        elif isinstance(item, str | Path):
            opened += [SlideModel.from_pretrained(path) for path in _list_folders(Path(item))]
        else:
            raise TypeError(
                f"models has a {type(item).__name__}; give a SlideModel, the output_dir of "
                "stp.train.fit_slides or cross_validate_slides, or a list of these"
            )
    if not opened:
        raise ValueError("models is empty; give at least one slide model")
    digests = [model.digest for model in opened]
    if len(set(digests)) < len(digests):
        raise ValueError("models has the same model twice; give each only once")
    _require_same_targets(opened)
    return opened


def open_slide_model(model: AnyModel) -> SlideModel:
    """Return one slide model, given as such or as its folder.

    Raises
    ------
    FileNotFoundError
        The folder has no model.
    TypeError
        Something else was given, such as several models.
    ValueError
        The folder is that of a cross-validation.
    """
    if isinstance(model, SlideModel):
        return model
    if not isinstance(model, str | Path):
        raise TypeError(
            f"model is a {type(model).__name__}; give one SlideModel, or the output_dir of "
            "stp.train.fit_slides"
        )
    folders = _list_folders(Path(model))
    if len(folders) > 1:
        raise ValueError(
            f"{model} is a cross-validation of {len(folders)} models, and each has a map of its "
            f"own; give the one that predicted the patient, such as {folders[0]}: "
            f"{Path(model) / FOLDS} lists the fold in which a patient is on the side 'test'"
        )
    return SlideModel.from_pretrained(folders[0])


def require_fit(
    models: Sequence[SlideModel], features: SlideFeatures, owner: str = "the cohort"
) -> None:
    """Check that features are those that models were trained on.

    Unknown scales are warned of.

    Parameters
    ----------
    models
        The models.
    features
        How the features were made.
    owner
        What has the features, in the error.

    Raises
    ------
    ValueError
        Model, width or scale of the features differ; scales may differ by 5 %.
    """
    for model in models:
        trained = model.config.features
        name = model.name or "the slide model"
        require_same_model(model, features, owner)
        pairs = {
            "tile_um": (features.tile_um, trained.tile_um),
            "um_per_px": (features.um_per_px, trained.um_per_px),
        }
        for field, (here, there) in pairs.items():
            if here is None or there is None:
                continue
            if abs(np.log(here / there)) > np.log1p(TOLERANCE):
                raise ValueError(
                    f"tiles of {owner} have {field} {here:g}, and those that {name} was trained "
                    f"on {there:g}; extract features of tiles of the same size and scale"
                )
    unknown = sorted(
        field
        for field in ("tile_um", "um_per_px")
        if any(
            None in (getattr(features, field), getattr(m.config.features, field)) for m in models
        )
    )
    if unknown:
        warn(
            f"the {' and the '.join(unknown)} of the tiles of {owner} or of the training is not "
            "recorded, so nothing checks that they have the same scale"
        )


def require_same_model(model: SlideModel, features: SlideFeatures, owner: str) -> None:
    """Raise ValueError if features are not of the model and width that a model was trained on."""
    trained = model.config.features
    if (features.model_digest, features.width) != (trained.model_digest, trained.width):
        raise ValueError(
            f"{model.name or 'the slide model'} was trained on {_describe(trained)}, and {owner} "
            f"has {_describe(features)}; make the features of {owner} with the same model and tiles"
        )


def find_odd_bags(models: Sequence[SlideModel], sizes: np.ndarray) -> np.ndarray:
    """Return which bags (n_bags,) are much smaller or larger than those of the training.

    A warning names their sizes.
    """
    ranges = [model.config.bag_sizes for model in models if model.config.bag_sizes]
    lowest = min((low for low, _ in ranges), default=0)
    highest = max((high for _, high in ranges), default=int(sizes.max()))
    is_odd = (sizes * BAG_FACTOR < lowest) | (sizes > BAG_FACTOR * highest)
    if is_odd.any():
        warn(
            f"the bags of {count(is_odd.sum(), 'patient')} have {sizes[is_odd].min():,} to "
            f"{sizes[is_odd].max():,} tiles, and those of the training had {lowest:,} to "
            f"{highest:,}; check that tiles were laid in the same way"
        )
    return is_odd


def find_unseen(models: Sequence[SlideModel], patients: Sequence[str]) -> np.ndarray:
    """Return which models (n_patients, n_models) have never seen which patients.

    Raises
    ------
    ValueError
        A patient was seen by all models.
    """
    has_seen = np.zeros((len(patients), len(models)), bool)
    by_salt: dict[str, list[int]] = {}
    unchecked = []
    for number, model in enumerate(models):
        if model.config.patient_hashes:
            by_salt.setdefault(model.config.salt, []).append(number)
        else:
            unchecked.append(model.name or f"model {number}")
    for numbers in by_salt.values():
        # Models of one cohort have one salt, so each patient is hashed once.
        hashes = models[numbers[0]].hash_patients(patients)
        for number in numbers:
            seen = set(models[number].config.patient_hashes)
            has_seen[:, number] = [value in seen for value in hashes]
    if unchecked:
        warn(
            f"{preview(unchecked)} has no record of its patients, so nothing checks that it never "
            "saw the patients it predicts"
        )
    is_lost = has_seen.all(axis=1)
    if is_lost.any():
        n_lost = count(is_lost.sum(), "patient")
        lost = preview(np.asarray(patients, object)[is_lost])
        raise ValueError(
            f"{n_lost} trained or validated every model: {lost}; predict them with the models of "
            "stp.train.cross_validate_slides, of which one never saw them, or leave them out"
        )
    return ~has_seen


def _list_folders(folder: Path) -> list[Path]:
    """Return the folder of a model, or the folders that a cross-validation lists."""
    file = folder / MODELS
    if file.is_file():
        return [folder / name for name in json.loads(file.read_text(encoding="utf-8"))["models"]]
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} has neither a slide model nor a finished cross-validation; give the "
            "output_dir of stp.train.fit_slides or cross_validate_slides, and finish it first"
        )
    return [folder]


def _require_same_targets(models: Sequence[SlideModel]) -> None:
    """Raise ValueError if models predict different columns."""
    first = models[0]
    for model in models[1:]:
        if _outputs(model) != _outputs(first):
            raise ValueError(
                f"models predict different targets: {first.name or 'the first'} "
                f"{list(first.config.columns)}, {model.name or 'another'} "
                f"{list(model.config.columns)}; call predict_slides for each with its own key_added"
            )


def _outputs(model: SlideModel) -> list[tuple]:
    return [
        (target.kind, target.name, target.classes, target.positive, target.event)
        for target in model.config.targets
    ]


def _describe(features: SlideFeatures) -> str:
    digest = features.model_digest[:12] if features.model_digest else "no record of a model"
    name = features.model_name or "features"
    size = f", tiles of {features.tile_um:g} µm" if features.tile_um is not None else ""
    return f"{name} ({digest}, {features.width} values a tile{size})"
