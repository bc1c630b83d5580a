"""Draw the landing page's picture from a finished demo: `python docs/result_picture.py DEMO`."""

import io
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import scanpy as sc
import spatialdata
from PIL import Image

import stp

GENE = "ENSG00000119888"  # EPCAM
PICTURE = Path(__file__).parent / "_static" / "result.png"
DPI = 90
N_COLORS = 64


def main(demo: Path) -> None:
    """Embed, cluster and predict the slide that the demo's Stamp never saw, and draw it."""
    sdata = spatialdata.read_zarr(demo / "stores" / "held_out.zarr")
    model = stp.models.Stamp.from_pretrained(demo / "stamp")
    references = [demo / "stores" / f"train_{number}.zarr" for number in range(2)]
    references = [embed(spatialdata.read_zarr(path), model) for path in references]
    embed(sdata, model)
    stp.tl.fuse(sdata)
    table = sdata.tables["table"]
    sc.pp.neighbors(table, use_rep="X_stp_fused", transformer="sklearn")
    sc.tl.leiden(table, resolution=0.3, flavor="igraph", n_iterations=2, directed=False)
    stp.tl.predict_expression(sdata, references, genes=[GENE])
    table.obs["cluster"] = table.obs["leiden"]
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    picture = sdata.images["image"]["scale1"].image.transpose("y", "x", "c")
    axes[0, 0].imshow(picture)
    axes[0, 0].set(title="H&E", xticks=[], yticks=[])
    stp.pl.spots(sdata, "cluster", ax=axes[0, 1], title="clusters")
    stp.pl.spots(sdata, GENE, ax=axes[1, 0], title="EPCAM, measured")
    key = "stp_expression"
    stp.pl.spots(sdata, GENE, key=key, ax=axes[1, 1], title="EPCAM, predicted from the image")
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI)
    Image.open(file).convert("RGB").quantize(N_COLORS).save(PICTURE, optimize=True)


def embed(sdata: spatialdata.SpatialData, model: stp.models.Stamp) -> spatialdata.SpatialData:
    """Add tokens and both embeddings to a slide, and return it."""
    stp.tl.tokenize(sdata, model)
    stp.tl.embed_genes(sdata, model)
    stp.tl.embed_images(sdata, model)
    return sdata


if __name__ == "__main__":
    main(Path(sys.argv[1]))
