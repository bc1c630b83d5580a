"""All paths that a study leads to, checked before any work for an agent."""

import json
from dataclasses import dataclass
from glob import has_magic
from itertools import chain
from pathlib import Path

from stp.io._cohort_table import read_table
from stp.io._table_entries import JOURNAL, scratch_folder
from stp.models.published.backbones import BACKBONES
from stp.models.saved.description import CONFIG, read_description
from stp.tables import keys
from stp.train.cross_validation import MODELS
from stp.workflows.mcp_paths import OutsideError, Root, require_name
from stp.workflows.slide_cohorts import CohortSource, other_cohort
from stp.workflows.slide_config import Study, read_study
from stp.workflows.slide_steps import PREDICTIONS, find_models, read_record


def open_study(root: Root, file: str) -> Study:
    """Read the file of a study, and check all paths in it.

    Raises
    ------
    OutsideError
        One of them leads outside.
    StudyError
        The file has faults.
    """
    study = read_study(root.file(file, "the file of the study"))
    cohort = study.cohort
    require_name(cohort.table_key, "[cohort] table_key")
    require_name(cohort.use_rep, "[cohort] use_rep")
    settings = {
        "output_dir": study.output_dir,
        "[cohort] slides": cohort.slides,
        "[cohort] clinical": cohort.clinical,
        "[cohort] root": cohort.root,
    }
    if study.slides is not None:
        settings["[slides] tissue"] = study.slides.tissue
        if study.slides.model not in BACKBONES:  # a name is only compared, and nothing is loaded
            settings["[slides] model"] = study.slides.model
        for pattern in study.slides.wsi:
            _check_pattern(root, study, pattern, "[slides] wsi")
    if study.genes is not None:
        require_name(study.genes.expression_key, "[genes] expression_key")
        require_name(study.genes.reference_rep, "[genes] reference_rep")
        settings["[genes] gene_sets"] = study.genes.gene_sets
        for pattern in study.genes.references:
            _check_pattern(root, study, pattern, "[genes] reference")
    for what, text in settings.items():
        if text is not None:
            check_path(root, study.file.parent, text, what)
    return study


def check_source(root: Root, source: CohortSource) -> None:
    """Check the tables of a cohort, the folder of its features, and the paths in its slide table.

    Raises
    ------
    OutsideError
        One of them leads outside.
    """
    files = {
        "the slide table": source.slides_file,
        "the clinical table": source.clinical,
        "the folder of features": source.root,
    }
    for what, path in files.items():
        if path is not None:
            check_path(root, root.folder, path, what)
    table = source.study.cohort
    # That of the file is checked, of which another cohort may be a part.
    ids = (table.slide_key, table.patient_key, table.path_key)
    slides = read_table(source.slides_file, "slides", ids)
    folder = source.root or source.slides_file.parent
    for column in sorted({table.path_key, keys.PATH} & set(slides)):
        names = slides.get(table.slide_key, slides.index)
        for slide, text in zip(names, slides[column], strict=True):
            if isinstance(text, str):
                what = f"{source.slides_file.name}, {column} of {slide}"
                path = root.inside(folder, text, what)
                # Of a file that is missing, its neighbors are listed for a hint.
                root.check_tree(path if path.exists() else path.parent, what)


def check_models(root: Root, models: Path) -> None:
    """Check a folder of models, those that a cross-validation lists, and that none is downloaded.

    Raises
    ------
    OutsideError
        A model lies outside, or its weights are those of the hub.
    """
    folder = check_path(root, root.folder, models, "the folder of models")
    folders = [folder]
    if (folder / MODELS).is_file():
        names = json.loads((folder / MODELS).read_text(encoding="utf-8"))["models"]
        folders = [
            check_path(root, folder, str(name), f"{folder / MODELS}: model") for name in names
        ]
    for item in folders:
        if (item / CONFIG).is_file() and _is_downloaded(read_description(item / CONFIG)["config"]):
            raise OutsideError(
                f"{item / CONFIG} asks for weights of the hub (pretrained), and only models in "
                f"{root.folder} are used; save the model with its weights"
            )


def find_model(root: Root, model: str) -> Path:
    """Return the folder of a model that lies in the folder of the server.

    Raises
    ------
    OutsideError
        It lies outside, or is the name of a model of the hub.
    FileNotFoundError
        The folder has no model.
    """
    path = root.path(model, "model")
    if not path.exists() and (model in BACKBONES or "/" in model):
        raise OutsideError(
            f"there is no model at {path}, and models of the hub are not loaded; give a folder of "
            f"a model in {root.folder}"
        )
    path = root.subfolder(model, "model")
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(f"{path} has no {CONFIG}; give a folder of stp.train")
    check_models(root, path)
    return path


def check_predictions(root: Root, study: Study) -> None:
    """Check what the records of all predictions of a study name.

    Raises
    ------
    OutsideError
        A record names a folder outside.
    """
    for file in sorted((study.output / PREDICTIONS).glob("*.h5ad")):
        record = read_record(file)
        if record:
            what = f"{file.with_suffix('.json')}: models"
            models = str(record["models"])
            check_path(root, Path.cwd(), models, what)
            # The cross-validation that trained them may have predictions, which are scored, too.
            check_path(root, Path.cwd(), Path(models).parent / PREDICTIONS, what)


def check_store(root: Root, path: Path) -> None:
    """Check a store, and what an embedding that was stopped left next to it.

    Raises
    ------
    OutsideError
        A link leads outside, or an entry that is to be restored has the name of a path.
    """
    root.check_tree(path, "the store")
    root.inside(path.parent, f".{path.name}.lock", "the lock of the store")
    scratch = scratch_folder(path)
    if not scratch.exists():
        return
    root.check_tree(scratch, "the store")
    if (scratch / JOURNAL).is_file():
        journal = json.loads((scratch / JOURNAL).read_text(encoding="utf-8"))
        for name in (journal["table"], *chain.from_iterable(journal["new"])):
            require_name(str(name), f"{scratch / JOURNAL}: entry")


@dataclass(frozen=True)
class OtherCohort:
    """The cohort and models that a call names instead of those of the study.

    Parameters
    ----------
    clinical
        Its clinical table.
    slides
        Its slide table.
    features
        Folder of its features.
    models
        Results of a study, a cross-validation or a model.
    """

    clinical: Path | None
    slides: Path | None
    features: Path | None
    models: Path | None

    @classmethod
    def from_texts(
        cls,
        root: Root,
        clinical: str | None,
        slides: str | None,
        features: str | None,
        models: str | None,
    ) -> "OtherCohort":
        """Return the cohort of paths in the folder of the server."""
        return cls(
            None if clinical is None else root.file(clinical, "clinical"),
            None if slides is None else root.file(slides, "slides"),
            None if features is None else root.subfolder(features, "features"),
            None if models is None else root.subfolder(models, "models"),
        )

    def source(self, root: Root, study: Study) -> CohortSource:
        """Return its tables and features, or else those of a study, after all paths were checked.

        Raises
        ------
        OutsideError
            A path in a table, or a model, lies outside.
        """
        source = other_cohort(study, slides=self.slides, clinical=self.clinical, root=self.features)
        check_source(root, source)
        if self.models is not None:
            check_models(root, find_models(study, self.models))
        return source


def check_path(root: Root, base: Path, text: str | Path, what: str) -> Path:
    """Return a path after it and all that it leads to were checked."""
    path = root.inside(base, text, what)
    if path.exists():
        root.check_tree(path, what)
    return path


def _check_pattern(root: Root, study: Study, pattern: str, what: str) -> None:
    """Check the folder in which files of a pattern are looked for."""
    root.inside(study.file.parent, pattern, what)
    parts = Path(pattern).parts
    n_fixed = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))
    if ".." in parts[n_fixed:]:
        raise OutsideError(
            f"{what} {pattern!r} has .. after a pattern, which may lead outside {root.folder}; "
            "write the folder without a pattern"
        )
    check_path(root, study.file.parent, str(Path(*parts[:n_fixed])), what)


def _is_downloaded(config: object) -> bool:
    """Return whether a config, or one in it, asks for weights of the hub."""
    if isinstance(config, dict):
        return bool(config.get("pretrained")) or any(map(_is_downloaded, config.values()))
    return isinstance(config, list) and any(map(_is_downloaded, config))
