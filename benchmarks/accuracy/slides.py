"""Slides read from stores, and their embeddings by the model that may see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import spatialdata
import torch
import zarr

import stp
from benchmarks.clusters import labelled_rows
from stp.cli.embed import Model, open_model, reads_genes
from stp.images.slides import Slide, find_slides
from stp.models import GeneEncoder, ImageEncoder, Stamp
from stp.tables import keys

RAW = "X_raw"


@dataclass(frozen=True)
class Section:
    """One slide of a store.

    Parameters
    ----------
    name, patient
        Who it is, and of whom.
    sdata
        What was read.
    """

    name: str
    patient: str
    sdata: spatialdata.SpatialData

    @property
    def table(self) -> anndata.AnnData:
        """Its table."""
        return self.sdata.tables["table"]

    @property
    def path(self) -> Path | None:
        """Where it was read from."""
        return self.sdata.path and Path(self.sdata.path)

    @cached_property
    def slide(self) -> Slide | None:
        """Spots and image; None without an image."""
        return find_slides(self.sdata, self.table)[0] if self.sdata.images else None

    @property
    def centers(self) -> np.ndarray | None:
        """Spot centers (n, 2) in um; None where there are none."""
        return self.table.obsm.get("spatial")

    def rows(self, label_key: str) -> np.ndarray:
        """Positions of spots with a determined label whose class has enough spots."""
        if label_key not in self.table.obs:
            raise KeyError(
                f"{self.name} has no obs[{label_key!r}]; choose --label-key from {list(self.table.obs)}"
            )
        return labelled_rows(self.table.obs[label_key])


def read(paths: Sequence[Path], patient_key: str) -> list[Section]:
    """Read stores; without `obs[patient_key]` each slide counts as a patient."""
    sections = []
    for path in paths:
        sdata, name = spatialdata.read_zarr(path), Path(path).name.removesuffix(".zarr")
        sections.append(Section(name, patient_of(path, patient_key), sdata))
    names = [one.name for one in sections]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two stores have one name among {names}; a slide would be in both sides of a split"
        )
    return sections


def patient_of(path: Path, patient_key: str) -> str:
    """Read the patient of a store; the slide itself where nothing tells the patient."""
    obs = zarr.open_group(path, mode="r")["tables/table/obs"]
    if patient_key not in obs:
        return path.name.removesuffix(".zarr")
    patients = pd.Series(anndata.io.read_elem(obs[patient_key])).astype(str).unique()
    if len(patients) != 1:
        raise ValueError(
            f"{path} holds several patients {patients.tolist()}; write one store per slide"
        )
    return str(patients[0])


class Embedder:
    """Embed sections, each once per model.

    Parameters
    ----------
    template
        Path of a model; `{slide}` and `{patient}` in it are those that are tested, for models that never saw them.
    backbone
        Name or folder of an image encoder whose features stand beside; by default the model's own, untrained.
    """

    def __init__(self, template: str, backbone: str | None = None) -> None:
        self.template, self.backbone, self.notes = template, backbone, []
        self._models: dict[str, Model] = {}
        self._tables: dict[tuple[str, str], anndata.AnnData] = {}

    def path(self, tested: Section) -> str:
        """Path of the model for the fold in which a section is tested."""
        return self.template.format(slide=tested.name, patient=tested.patient)

    def model(self, tested: Section) -> Model:
        """Return the model of the fold in which a section is tested."""
        path = self.path(tested)
        if path not in self._models:
            self._models[path] = open_model(path)
            if isinstance(self._models[path], GeneEncoder):
                self.notes.append(
                    "STAMP_G is the gene encoder of stage one, without alignment: the paper's dagger"
                )
        return self._models[path]

    def __call__(self, section: Section, tested: Section) -> anndata.AnnData:
        """Return the table of a section with all embeddings that the fold's model and the section allow."""
        key = self.path(tested), section.name
        if key not in self._tables:
            self._tables[key] = self._embed(section, self.model(tested))
        return self._tables[key]

    def _embed(self, section: Section, model: Model) -> anndata.AnnData:
        quiet = {"progress": False}
        table = section.table.copy()
        if reads_genes(model):
            stp.tl.tokenize(table, model)
            stp.tl.embed_genes(table, model, **quiet)
        if section.slide is None or not isinstance(model, Stamp | ImageEncoder):
            return table
        parts = (section.sdata.images, section.sdata.shapes, section.sdata.labels, {"table": table})
        sdata = spatialdata.SpatialData.init_from_elements(
            {name: one for part in parts for name, one in part.items()}
        )
        stp.tl.embed_images(sdata, model, **quiet)
        stp.tl.embed_images(sdata, self._raw(model), key_added=RAW, **quiet)
        if reads_genes(model):
            stp.tl.fuse(table)
        return table

    def _raw(self, model: Stamp | ImageEncoder) -> ImageEncoder:
        if self.backbone is not None:
            return open_model(self.backbone)
        config = (model.image_encoder if isinstance(model, Stamp) else model).config
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return ImageEncoder(config).eval()


FEATURES = {
    "STAMP_G": keys.GENES,
    "STAMP_V": keys.IMAGES,
    "STAMP_F": keys.FUSED,
    "raw backbone": RAW,
}
