"""Draw the landing page's picture from a finished demo: `python docs/result_picture.py DEMO`."""

import io
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc
import spatialdata
from PIL import Image

import stp

GENE = "ENSG00000119888"  # EPCAM
PICTURE = Path(__file__).parent / "_static" / "result.png"
DPI = 62


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
    measured = sc.pp.normalize_total(table, target_sum=1e4, copy=True)
    sc.pp.log1p(measured)
    table.obs["cluster"] = pd.Categorical(table.obs["leiden"])
    table.obs["EPCAM, measured"] = measured[:, GENE].X.toarray().ravel()
    table.obs["EPCAM, predicted from the image"] = table.obsm["stp_expression"][:, 0]
    rows = [["cluster"], ["EPCAM, measured", "EPCAM, predicted from the image"]]
    pictures = [picture_of(sdata, columns) for columns in rows]
    pictures[1] = pictures[1].crop((pictures[1].width // 3, 0, *pictures[1].size))  # no second H&E
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures)
    whole = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    whole.quantize(128).save(PICTURE, optimize=True)


def embed(sdata: spatialdata.SpatialData, model: stp.models.Stamp) -> spatialdata.SpatialData:
    """Add tokens and both embeddings to a slide, and return it."""
    stp.tl.tokenize(sdata, model)
    stp.tl.embed_genes(sdata, model)
    stp.tl.embed_images(sdata, model)
    return sdata


def picture_of(sdata: spatialdata.SpatialData, columns: list[str]) -> Image.Image:
    """Return the H&E and the spots, colored by each column, as one picture."""
    figure = stp.pl.spots(sdata, columns)
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI)
    plt.close(figure)
    return Image.open(file).convert("RGB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
