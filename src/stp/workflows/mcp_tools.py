"""The tools of the server for agents: each checks all paths, and then does what the command does.

The docstrings of the tools are what agents read. Packages are imported by the first call that needs
them, because a client waits only some seconds for the server to start.
"""

import json
from pathlib import Path
from typing import Any

from stp._text import readable, text_of
from stp.workflows.mcp_paths import OutsideError, Root, require_name

MANIFEST = "stp_embed.jsonl"


class Tools:
    """Functions that an agent calls, confined to a folder.

    Parameters
    ----------
    folder
        The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def list_folder(self) -> dict[str, Any]:
        """List the stores (slides), files of cohorts and models in the folder of this server.

        All other tools take the paths that this one returns.
        """
        from stp.workflows import mcp_describe

        return mcp_describe.list_folder(Root(self.folder))

    def describe_store(self, store: str) -> dict[str, Any]:
        """Describe a store: spots, genes, images, scale in µm, columns, and results in obsm."""
        from stp.workflows import mcp_describe

        root = Root(self.folder)
        path = root.subfolder(store, "the store")
        return mcp_describe.describe_store(path, self.folder)

    def describe_cohort(self, file: str) -> dict[str, Any]:
        """Show all settings of a cohort's TOML file, and the names of its predictions."""
        from stp.workflows import mcp_describe, mcp_studies

        root = Root(self.folder)
        return mcp_describe.describe_cohort(mcp_studies.open_study(root, file))

    def check(
        self,
        file: str,
        clinical: str | None = None,
        slides: str | None = None,
        features: str | None = None,
        models: str | None = None,
    ) -> dict[str, Any]:
        """List everything that would fail in a study of slides and patients, before any work.

        Faults must be corrected, notes must be known. `clinical`, `slides` and `features` name the
        clinical table, slide table and folder of features of another cohort. `models` are the
        results of a study, a cross-validation or a model that would predict it.
        """
        from stp.workflows import mcp_studies
        from stp.workflows.slide_check import check_file, check_study, describe_findings
        from stp.workflows.slide_check_targets import ERRORS, Finding
        from stp.workflows.slide_config import StudyError
        from stp.workflows.slide_steps import find_models

        root = Root(self.folder)
        path = root.file(file, "the file of the study")
        other = mcp_studies.OtherCohort.from_texts(root, clinical, slides, features, models)
        try:
            study = mcp_studies.open_study(root, file)
        except StudyError:
            return describe_findings(check_file(path))  # which lists the faults of the file
        try:
            source = other.source(root, study)
        except OutsideError:
            raise
        except ERRORS as error:
            return describe_findings([Finding("cohort", text_of(error))])
        folder = None if other.models is None else find_models(study, other.models)
        return describe_findings(check_study(study, source, folder))

    def embed(
        self,
        stores: list[str],
        model: str,
        table_key: str = "table",
        batch_size: int = 64,
        device: str | None = None,
        precision: str = "auto",
    ) -> dict[str, Any]:
        """Embed the spots of stores by genes and images with a model, and write results to them.

        Finished embeddings are skipped. `model` is the folder of a Stamp or encoder; names of
        models on the hub are refused. It may take hours on a CPU.
        """
        from stp.io import embed_stores
        from stp.workflows import mcp_studies

        root = Root(self.folder)
        paths = [root.subfolder(store, "the store") for store in stores]
        for path in paths:
            if path == self.folder:
                raise OutsideError(f"{path} is the folder of this server; give a store in it")
            mcp_studies.check_store(root, path)
        encoder = mcp_studies.find_model(root, model)
        require_name(table_key, "table_key")
        manifest = root.path(MANIFEST, "the manifest")
        n_lines = _count_lines(manifest)
        n_failed = embed_stores(
            paths,
            encoder,
            manifest=manifest,
            batch_size=batch_size,
            device=device,
            precision=precision,
            table_key=table_key,
        )
        lines = manifest.read_text(encoding="utf-8").splitlines()[n_lines:]
        return {"n_failed": n_failed, "stores": [json.loads(line) for line in lines if line]}

    def predict(
        self,
        file: str,
        clinical: str | None = None,
        slides: str | None = None,
        features: str | None = None,
        models: str | None = None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """Predict patients by models that have never seen them, and return the predictions' files.

        Without further arguments these are the patients of the study, by the models of its
        cross-validation. `clinical`, `slides` and `features` name another cohort, `models` other
        models, and `name` the predictions.
        """
        from stp.workflows import mcp_studies
        from stp.workflows.slide_steps import find_models, name_predictions, predict

        root = Root(self.folder)
        study = mcp_studies.open_study(root, file)
        other = mcp_studies.OtherCohort.from_texts(root, clinical, slides, features, models)
        predictions = name_predictions(
            study.file, name, table=other.clinical or other.slides, models=other.models
        )
        source = other.source(root, study)
        folder = find_models(study, other.models)
        mcp_studies.check_models(root, folder)
        result = predict(study, source, folder, predictions)
        return {
            "name": predictions,
            "table": self._relative(result.with_suffix(".csv")),
            "cohort": self._relative(result),
        }

    def score(self, file: str) -> dict[str, Any]:
        """Score all predictions of a study with intervals, and write tables, figures, a report."""
        from stp.workflows import mcp_studies
        from stp.workflows.slide_scores import score

        root = Root(self.folder)
        study = mcp_studies.open_study(root, file)
        mcp_studies.check_predictions(root, study)
        result = score(study)
        return {
            "report": self._relative(result.with_name("report.html")),
            **json.loads(result.read_text(encoding="utf-8")),
        }

    def draw(
        self,
        file: str,
        name: str | None = None,
        slides: list[str] | None = None,
        models: str | None = None,
        um_per_px: float | None = None,
    ) -> dict[str, Any]:
        """Draw where predictions come from: maps and tiles as PNG, numbers as GeoJSON for QuPath.

        `name` are the predictions, `slides` ids of slides (all by default), `models` one model if
        several predicted each patient, and `um_per_px` the scale if the features lack it.
        """
        from stp.workflows import mcp_predictions, mcp_studies
        from stp.workflows.slide_maps import MAPS, draw
        from stp.workflows.slide_steps import find_models, name_predictions

        root = Root(self.folder)
        study = mcp_studies.open_study(root, file)
        predictions = name_predictions(study.file, name, table=None, models=None)
        folder = None if models is None else root.subfolder(models, "models")
        if folder is not None:
            mcp_studies.check_models(root, find_models(study, folder))
        mcp_predictions.check_maps(root, study, predictions)
        failures = draw(
            study, name=predictions, slides=slides or (), models=folder, um_per_px=um_per_px
        )
        maps = study.output / MAPS / predictions
        files = sorted(self._relative(path) for path in maps.iterdir()) if maps.is_dir() else []
        return {"failures": failures, "files": files}

    def explain(
        self, file: str, name: str | None = None, models: str | None = None
    ) -> dict[str, Any]:
        """Find the genes behind predictions: those high in the tiles that slide models decide by.

        `name` are the predictions, and `models` other slide models. Genes of tiles are predicted
        from the measured stores that `[genes]` names, and written into the tile stores.
        """
        from stp.workflows import mcp_predictions, mcp_studies
        from stp.workflows.slide_genes import explain
        from stp.workflows.slide_steps import find_models, name_predictions

        root = Root(self.folder)
        study = mcp_studies.open_study(root, file)
        predictions = name_predictions(study.file, name, table=None, models=None)
        folder = None if models is None else root.subfolder(models, "models")
        if folder is not None:
            mcp_studies.check_models(root, find_models(study, folder))
        mcp_predictions.check_explained(root, study, predictions)
        result = explain(study, name=predictions, models=folder)
        return {
            "genes": self._relative(result.with_suffix(".csv")),
            "slides": self._relative(result.with_name("slides.csv")),
            "figure": self._relative(result.with_suffix(".svg")),
            **json.loads(result.read_text(encoding="utf-8")),
        }

    def _relative(self, path: Path) -> str:
        return readable(path.resolve().relative_to(self.folder))


def _count_lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0
