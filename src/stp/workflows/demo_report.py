"""The figures of the demo and its HTML report."""

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp import pl

if TYPE_CHECKING:
    from spatialdata import SpatialData

MARKERS = ["EPCAM", "COL1A1", "PTPRC", "PLIN1"]
CLUSTERS = ["domain", "leiden_genes", "leiden_images", "leiden_fused"]


def draw_figures(slide: "SpatialData", out: Path) -> dict[str, Path]:
    """Write the figures of an evaluated slide as PNG; return the path of each by its caption."""
    captions = {
        "domains": "True domains and clusters on the held-out slide",
        "patches": "Patches and the regions around them",
        "expression": "Measured and predicted from the image alone",
        "pretrain": "Pretraining of the gene encoder",
        "align": "Alignment",
    }
    figures = {
        "domains": pl.spots(slide, CLUSTERS, return_fig=True),
        "patches": pl.patches(slide, return_fig=True),
        "expression": pl.expression(slide, MARKERS, return_fig=True),
        "pretrain": pl.training(out / "gene_encoder", return_fig=True),
        "align": pl.training(out / "stamp", return_fig=True),
    }
    paths = {}
    for name, figure in figures.items():
        path = out / f"{name}.png"
        assert figure is not None  # because of return_fig=True
        figure.savefig(path, dpi=110)
        paths[captions[name]] = path
    return paths


def write_report(summary: dict[str, Any], figures: dict[str, Path], path: Path) -> None:
    """Write one HTML page with the scores, the seconds and the figures by caption."""
    trained = summary["held_out"]
    untrained = summary["untrained"]
    rows = [
        f"<tr><td>{name}</td><td>{trained[name]:.3f}</td><td>{untrained[name]:.3f}</td></tr>"
        for name in trained
        if name != "chance@5"
    ]
    seconds = [f"{html.escape(name)} {value:.0f} s" for name, value in summary["seconds"].items()]
    pictures = [_picture(caption, figure) for caption, figure in figures.items()]
    page = PAGE.format(
        rows="\n".join(rows),
        chance=f"{trained['chance@5']:.3f}",
        seconds=", ".join(seconds),
        pictures="\n".join(pictures),
    )
    path.write_text(page, encoding="utf-8")


def _picture(caption: str, path: Path) -> str:
    """Return a heading and the picture itself as HTML."""
    caption = html.escape(caption)
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<h2>{caption}</h2><img alt="{caption}" src="data:image/png;base64,{data}">'


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>stp demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto;
padding: 0 1em; }}
img {{ max-width: 100%; }} td, th {{ padding: .2em 1.2em .2em 0; text-align: left; }}
</style></head><body>
<h1>stp demo</h1>
<p>The demo trains a small Stamp on four synthetic slides and chooses its best epoch on a fifth. The
scores are of a sixth slide that the model never saw. All slides follow one law from tissue domain
to nuclei and expression; their layout and stain differ. The scores show that the software works;
they show nothing about real tissue.</p>
<table><tr><th>held-out slide</th><th>trained</th><th>untrained</th></tr>
{rows}
</table>
<p>ari: adjusted Rand index of Leiden clusters (resolution 0.5) and the true domains. pcc: mean
correlation of the 100 most variable genes, predicted from the image alone. recall@5: share of spots
whose own genes are among the five nearest to their patch; chance is {chance}.</p>
<p>{seconds}</p>
{pictures}
</body></html>
"""
