"""The HER2+ sections of this collection, and small models for them."""

import dataclasses
from pathlib import Path

import anndata
import numpy as np
import spatialdata

import stp
from stp.models import GeneEncoder, GeneEncoderConfig, ImageEncoderConfig
from stp.train import AlignConfig, Phase, PretrainConfig

TRAIN = ("C2", "C3", "C4")
VALIDATION = "C5"
TEST = "C6"
LABELED = ("C1", "D1", "E1", "F1")
PITCH_UM = 200.0
SPOT_UM = 100.0
PATCH_UM = 112.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the models, and the sections that they see.

    Parameters
    ----------
    gene, image
        Sizes of the encoders.
    pretrain, align
        Settings of the two stages of training.
    labeled
        Sections with a pathologist's regions that are scored.
    n_sections
        Number of sections of each patient to pretrain on; by default all.
    """

    gene: GeneEncoderConfig = GeneEncoderConfig(
        context_length=192, width=96, depth=3, n_heads=4, ffn_width=192
    )
    image: ImageEncoderConfig = ImageEncoderConfig(
        "vit_tiny_patch16_224",
        {"patch_size": 16, "embed_dim": 192, "depth": 4, "num_heads": 6},
        image_size=96,
        um_per_px=PATCH_UM / 96,
    )
    pretrain: PretrainConfig = PretrainConfig(
        phases=(Phase(epochs=2, batch_size=64), Phase(objective="neighborhood", batch_size=72)),
        learning_rate=1e-3,
        min_learning_rate=5e-5,
    )
    align: AlignConfig = AlignConfig(
        epochs=30,
        batch_size=48,
        accumulate=1,
        learning_rate=5e-4,
        min_learning_rate=2e-5,
        rotate=True,
        stain_jitter=0.2,
        projection_width=128,
    )
    labeled: tuple[str, ...] = LABELED
    n_sections: int | None = None

    @classmethod
    def small(cls) -> "Settings":
        """Return a gene encoder without patient C, and a smaller image encoder aligned with it."""
        full = cls()
        image_sizes = {"patch_size": 16, "embed_dim": 96, "depth": 3, "num_heads": 3}
        return cls(
            image=dataclasses.replace(full.image, backbone_args=image_sizes),
            align=dataclasses.replace(full.align, epochs=15, learning_rate=1e-3, trained="images"),
            labeled=(),
        )

    @classmethod
    def short(cls) -> "Settings":
        """Return a smoke test of the same path, which takes about a minute."""
        full = cls()
        image_sizes = {"patch_size": 16, "embed_dim": 48, "depth": 1, "num_heads": 3}
        return cls(
            gene=GeneEncoderConfig(context_length=64, width=32, depth=1, n_heads=2, ffn_width=64),
            image=dataclasses.replace(
                full.image, backbone_args=image_sizes, image_size=48, um_per_px=PATCH_UM / 48
            ),
            pretrain=dataclasses.replace(full.pretrain, phases=(Phase(batch_size=64),)),
            align=dataclasses.replace(full.align, epochs=2),
            labeled=("D1",),
            n_sections=1,
        )

    def patients(self) -> list[str]:
        """Return the patients to leave out: those of labeled sections, and C, who is aligned."""
        return sorted({"C", *(patient_of(section) for section in self.labeled)})


def patient_of(section: str) -> str:
    """Return the patient of a section, such as C of C4."""
    return section[0]


def read_section(data: Path, section: str) -> spatialdata.SpatialData:
    """Read a section, with its full H&E if there is one."""
    adata = anndata.read_h5ad(data / f"{section}.h5ad")
    image = data / f"{section}.jpg"
    return stp.io.from_anndata(
        adata,
        image if image.exists() else None,
        um_per_px=adata.uns["um_per_px"],
        spot_diameter_um=SPOT_UM,
        name=section,
    )


def write_stores(data: Path, folder: Path, settings: Settings) -> dict[str, Path]:
    """Write every section as a store, unless it is there; return their paths by name."""
    sections = sorted(path.stem for path in data.glob("*.h5ad"))
    n_sections = settings.n_sections
    if n_sections is not None:
        sections = [s for s in sections if patient_of(s) == "C" or int(s[1:]) <= n_sections]
    stores = {section: folder / "stores" / f"{section}.zarr" for section in sections}
    for section, path in stores.items():
        if not path.exists():
            slide = read_section(data, section)
            stp.io.write_store(slide, path, patch_um_per_px=settings.image.um_per_px)
    return stores


def pretrain_without(
    patient: str, stores: dict[str, Path], folder: Path, settings: Settings
) -> GeneEncoder:
    """Pretrain on all other patients; the means of the vocabulary come from them alone, too."""
    train = [path for section, path in stores.items() if patient_of(section) != patient]
    return stp.train.pretrain(
        train,
        folder / f"pretrain_without_{patient}",
        vocabulary=stp.Vocabulary.default().fit(train),
        model=settings.gene,
        config=settings.pretrain,
    )


def centers_of(slide: spatialdata.SpatialData) -> np.ndarray:
    """Return the spot centers (n, 2) of a section that was read, in µm."""
    table = slide.tables["table"]
    return np.asarray(table.obsm["spatial"], dtype=float) * table.uns["um_per_px"]


def patches_of(slide: spatialdata.SpatialData, image: ImageEncoderConfig) -> np.ndarray:
    """Return the patches of a section that was read, as an image encoder reads them."""
    pyramid = stp.images.ImagePyramid.from_spatialdata(slide, next(iter(slide.images)))
    return pyramid.read(centers_of(slide), size=image.image_size, um_per_px=image.um_per_px)
