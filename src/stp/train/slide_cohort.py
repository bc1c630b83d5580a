"""A cohort to train slide models on: its patients, and where and how its features are."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stp.data.bag_file import BagFile
from stp.models.slide_config import SlideFeatures
from stp.tables.cohort import BagSource, bag_sources, features_record
from stp.train.engine.run_dir import RunDir
from stp.train.slide_statistics import SlideStatistics

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class SlideCohort:
    """A cohort to train on: where its features are, and how they were made.

    Parameters
    ----------
    table
        Table with a row per slide.
    sources
        Where the features of each slide are.
    patients
        Ids of the patients, in the order in which the cohort first names them.
    features
        How the features were made.
    """

    table: "AnnData"
    sources: list[BagSource]
    patients: list[str]
    features: SlideFeatures

    @classmethod
    def of(cls, table: "AnnData") -> Self:
        """Check a cohort."""
        sources = bag_sources(table)
        patients = list(dict.fromkeys(source.patient for source in sources))
        return cls(table, sources, patients, read_features(table))

    @property
    def salt(self) -> str:
        """Salt for the hashes of patients (hexadecimal), the same for all runs on this cohort."""
        return hashlib.sha256("\n".join(sorted(self.patients)).encode()).hexdigest()[:32]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What identifies the features of the cohort in the settings of a run."""
        slides = [[source.patient, source.slide, source.n_tiles] for source in self.sources]
        text = json.dumps(slides)
        return {
            "slides": hashlib.sha256(text.encode()).hexdigest(),
            "features": asdict(self.features),
        }

    def write_bags(self, run: RunDir) -> tuple[BagFile, SlideStatistics]:
        """Copy all features to the scratch folder of a run, and compute their statistics."""
        file = BagFile.write(self.sources, run.scratch, processes=run.processes)
        run.on_main_process(lambda: SlideStatistics.save(file, run.scratch))
        return file, SlideStatistics.load(run.scratch)


def read_features(table: "AnnData") -> SlideFeatures:
    """Return how the features of a cohort were made."""
    record = features_record(table)
    model = record.get("model") or {}
    return SlideFeatures(
        width=int(record["width"]),
        model_name=str(model.get("name", "")),
        model_class=str(model.get("class", "")),
        model_digest=model.get("digest"),
        tile_um=_as_float(record.get("tile_um")),
        um_per_px=_as_float(record.get("um_per_px")),
    )


def _as_float(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
