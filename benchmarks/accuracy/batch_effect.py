r"""How well can patient and slide be read off an embedding, compared with a pathologist's regions?

    python -m benchmarks.accuracy.batch_effect --stores runs/her2st/stores/*.zarr \
        --model runs/her2st/pretrain_without_C --label-key pathologist_label --folder runs/batches

The patient of a slide is read from other slides. The slide itself is read in random folds.
"""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import stp
from benchmarks.accuracy.clusters import pca_of
from benchmarks.accuracy.her2st import embed_genes, make_untrained
from benchmarks.accuracy.slides import Section, read_sections
from benchmarks.measure import Row, make_parser, write_results
from stp.models import GeneEncoder

EMBEDDINGS = {
    "X_pca": "50 principal components",
    "X_untrained": "untrained gene encoder",
    "X_stp_genes": "gene encoder",
}
EXPECTED = {"X_pca": 0.95, "X_stp_genes": 0.95}  # accuracy of patients, predicted before the run


def main(arguments: list[str] | None = None) -> list[Row]:
    """Read patients and slides off each embedding; print, write, draw and return the scores."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--stores",
        type=Path,
        nargs="+",
        required=True,
        help="SpatialData zarr folders, one per slide",
    )
    parser.add_argument("--model", required=True, help="folder of a gene encoder")
    parser.add_argument(
        "--label-key", required=True, help="column of obs with classes; slides may lack it"
    )
    parser.add_argument("--patient-key", default="patient", help="column of obs (patient)")
    parser.add_argument("--folder", type=Path, required=True, help="folder for figures")
    options = parser.parse_args(arguments)
    sections = read_sections(options.stores, options.patient_key)
    model = GeneEncoder.from_pretrained(options.model)
    table = join(sections, model, options.label_key)
    embeddings = list(EMBEDDINGS)
    stp.tl.batch_effect(
        table,
        "patient",
        label_key="label",
        slide_key="slide",
        use_reps=embeddings,
        key_added="patients",
    )
    stp.tl.batch_effect(table, "slide", use_reps=embeddings, key_added="slides")
    options.folder.mkdir(parents=True, exist_ok=True)
    for key in ("patients", "slides"):
        stp.pl.batch_effect(table, key=key, show=False, save=options.folder / f"{key}.png")
    rows = list_rows(table.uns["patients"]["scores"], table.uns["slides"]["scores"])
    write_results(options.out, rows)
    return rows


def list_rows(patients: pd.DataFrame, slides: pd.DataFrame) -> list[Row]:
    """Return a row per embedding, and one for chance."""
    rows = []
    for key, name in EMBEDDINGS.items():
        row = list_row(name, patients.loc[key], slides.loc[key], "accuracy")
        if key in EXPECTED:
            is_met = row["patient"] >= EXPECTED[key]
            row |= {"goal": f"patient at least {EXPECTED[key]}", "met": is_met}
        rows.append(row)
    first = next(iter(EMBEDDINGS))
    return [*rows, list_row("chance", patients.loc[first], slides.loc[first], "chance")]


def list_row(name: str, patients: pd.Series, slides: pd.Series, score: str) -> Row:
    """Return one row of the table."""
    return {
        "embedding": name,
        "patient": round(float(patients[f"batch_{score}"]), 3),
        "section": round(float(slides[f"batch_{score}"]), 3),
        "region across patients": round(float(patients[f"label_{score}"]), 3),
    }


def join(sections: list[Section], model: GeneEncoder, label_key: str) -> anndata.AnnData:
    """Return the spots of all slides in one table, with their embeddings.

    Principal components are fitted on all slides.
    """
    random_model = make_untrained(model)
    slide_tables = [section.table for section in sections]
    components = pca_of(slide_tables, slide_tables)
    parts = []
    for section, values in zip(sections, components, strict=True):
        part = embed_genes(section.table, model)
        part.obsm["X_pca"] = values
        part.obsm["X_untrained"] = embed_genes(section.table, random_model).obsm["X_stp_genes"]
        labels = np.full(part.n_obs, "", dtype=object)
        if label_key in section.table.obs:
            rows = section.rows(label_key)
            labels[rows] = section.table.obs[label_key].astype(str).to_numpy()[rows]
        part.obs = pd.DataFrame(
            {"slide": section.name, "patient": section.patient, "label": labels},
            index=part.obs_names,
            dtype=object,
        )
        parts.append(part)
    return anndata.concat(parts, join="inner", index_unique="-", uns_merge="same")


if __name__ == "__main__":
    main()
