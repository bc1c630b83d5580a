"""Slides read from stores, and their embeddings by the model that may see them."""

import json
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
from benchmarks.accuracy.clusters import labeled_rows
from stp.images.slides import Slide, find_slides
from stp.models import GeneEncoder, ImageEncoder, Stamp

Model = Stamp | GeneEncoder | ImageEncoder

GENES = "X_stp_genes"
IMAGES = "X_stp_images"
FUSED = "X_stp_fused"
RAW = "X_raw"
FEATURES = {"STAMP_G": GENES, "STAMP_V": IMAGES, "STAMP_F": FUSED, "raw backbone": RAW}


@dataclass(frozen=True)
class Section:
    """One slide of a store.

    Parameters
    ----------
    name
        Name of the slide.
    patient
        Name of its patient.
    sdata
        What was read from the store.
    """

    name: str
    patient: str
    sdata: spatialdata.SpatialData

    @property
    def table(self) -> anndata.AnnData:
        """The table with counts."""
        return self.sdata.tables["table"]

    @property
    def path(self) -> Path | None:
        """The store; None if the slide was made in memory."""
        return self.sdata.path and Path(self.sdata.path)

    @cached_property
    def slide(self) -> Slide | None:
        """Spots and image; None without an image."""
        return find_slides(self.sdata, self.table)[0] if self.sdata.images else None

    @property
    def centers(self) -> np.ndarray | None:
        """Spot centers (n, 2) in µm; None if there are none."""
        return self.table.obsm.get("spatial")

    def rows(self, label_key: str) -> np.ndarray:
        """Return the positions of spots with a determined label whose class has enough spots."""
        if label_key not in self.table.obs:
            raise KeyError(
                f"{self.name} has no obs[{label_key!r}]; choose --label-key from "
                f"{list(self.table.obs)}"
            )
        return labeled_rows(self.table.obs[label_key])


def read_sections(paths: Sequence[Path], patient_key: str) -> list[Section]:
    """Read stores; without `obs[patient_key]` each slide counts as a patient."""
    sections = []
    for path in paths:
        name = Path(path).name.removesuffix(".zarr")
        sdata = spatialdata.read_zarr(path)
        sections.append(Section(name, patient_of_store(path, patient_key), sdata))
    names = [section.name for section in sections]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two stores have one name among {names}; a slide would be on both sides of a split"
        )
    return sections


def patient_of_store(path: Path, patient_key: str) -> str:
    """Return the patient of a store, or the name of the slide if the patient is not stored."""
    obs = zarr.open_group(path, mode="r")["tables/table/obs"]
    if patient_key not in obs:
        return path.name.removesuffix(".zarr")
    patients = pd.Series(anndata.io.read_elem(obs[patient_key])).astype(str).unique()
    if len(patients) != 1:
        raise ValueError(
            f"{path} holds several patients {patients.tolist()}; write one store per slide"
        )
    return str(patients[0])


def open_model(name: str) -> Model:
    """Load a model of any class from its folder, or a pathology encoder by its name."""
    if name in stp.models.backbones().index:
        return stp.models.load_backbone(name)
    config = json.loads((Path(name) / "config.json").read_text())
    classes = {"Stamp": Stamp, "GeneEncoder": GeneEncoder, "ImageEncoder": ImageEncoder}
    return classes[config["class"]].from_pretrained(name)


def reads_genes(model: Model) -> bool:
    """Whether a model embeds tokens; a Stamp that was aligned with pathways alone does not."""
    if isinstance(model, Stamp):
        return model.gene_encoder is not None
    return isinstance(model, GeneEncoder)


class Embedder:
    """Embed sections, each once per model.

    Parameters
    ----------
    template
        Path of a model. `{slide}` and `{patient}` in it are replaced by those that are tested, for
        models that never saw them.
    backbone
        Name or folder of an image encoder to compare with; by default the model's own, untrained.
    """

    def __init__(self, template: str, backbone: str | None = None) -> None:
        self.template = template
        self.backbone = backbone
        self.notes: list[str] = []
        self._models: dict[str, Model] = {}
        self._tables: dict[tuple[str, str], anndata.AnnData] = {}

    def path(self, tested: Section) -> str:
        """Return the path of the model for the fold in which a section is tested."""
        return self.template.format(slide=tested.name, patient=tested.patient)

    def model(self, tested: Section) -> Model:
        """Return the model of the fold in which a section is tested."""
        path = self.path(tested)
        if path not in self._models:
            self._models[path] = open_model(path)
            if isinstance(self._models[path], GeneEncoder):
                self.notes.append(
                    "STAMP_G is the gene encoder of stage one, without alignment: the paper's "
                    "dagger"
                )
        return self._models[path]

    def __call__(self, section: Section, tested: Section) -> anndata.AnnData:
        """Return the table of a section with the embeddings that model and section allow."""
        key = self.path(tested), section.name
        if key not in self._tables:
            self._tables[key] = self._embed(section, self.model(tested))
        return self._tables[key]

    def _embed(self, section: Section, model: Model) -> anndata.AnnData:
        table = section.table.copy()
        if reads_genes(model):
            stp.tl.tokenize(table, model)
            stp.tl.embed_genes(table, model, progress=False)
        if section.slide is None or isinstance(model, GeneEncoder):
            return table
        elements = {"table": table}
        for part in (section.sdata.images, section.sdata.shapes, section.sdata.labels):
            elements |= dict(part.items())
        sdata = spatialdata.SpatialData.init_from_elements(elements)
        stp.tl.embed_images(sdata, model, progress=False)
        stp.tl.embed_images(sdata, self._raw_encoder(model), key_added=RAW, progress=False)
        if reads_genes(model):
            stp.tl.fuse(table)
        return table

    def _raw_encoder(self, model: Stamp | ImageEncoder) -> ImageEncoder:
        if self.backbone is not None:
            return open_model(self.backbone)
        encoder = model.image_encoder if isinstance(model, Stamp) else model
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return ImageEncoder(encoder.config).eval()
