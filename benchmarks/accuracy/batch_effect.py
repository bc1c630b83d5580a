"""How well patient and slide are read off embeddings, beside the regions of a pathologist that they carry.

    python -m benchmarks.batches --stores S/*.zarr --model M --label-key pathologist_label --out results/batches

A slide's patient is read from his other slides; slides have no others, so theirs are read in random folds.
"""

import argparse
from pathlib import Path

import anndata
import pandas as pd
import torch

import stp
from benchmarks.clusters import pca_of
from benchmarks.her2st import embed_genes
from benchmarks.slides import Section, read
from stp.models import GeneEncoder

REPS = ["X_pca", "X_untrained", "X_stp_genes"]


def main(arguments: list[str] | None = None) -> dict[str, pd.DataFrame]:
    """Read patients, and slides, off each embedding; returns, prints and draws the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    parser.add_argument("--out", type=Path, required=True, help="folder for figures")
    options = parser.parse_args(arguments)
    table = joined(
        read(options.stores, options.patient_key),
        GeneEncoder.from_pretrained(options.model),
        options.label_key,
    )
    how = {"label_key": "label", "slide_key": "slide"}
    stp.tl.batch_effect(table, "patient", **how, use_reps=REPS, key_added="patients")
    stp.tl.batch_effect(table, "slide", use_reps=REPS, key_added="slides")
    options.out.mkdir(parents=True, exist_ok=True)
    scores = {key: table.uns[key]["scores"] for key in ("patients", "slides")}
    for key, of in scores.items():
        print(of.round(3).to_string())
        stp.pl.batch_effect(table, key=key).savefig(options.out / f"{key}.png", dpi=110)
    return scores


def joined(sections: list[Section], model: GeneEncoder, label_key: str) -> anndata.AnnData:
    """Put the spots of all slides in one table, with their embeddings; principal components are fitted on all."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = GeneEncoder(model.config, model.vocabulary).eval()
    parts, components = [], pca_of(*[[one.table for one in sections]] * 2)
    for section, of in zip(sections, components, strict=True):
        part = embed_genes(section.table, model)
        part.obsm["X_pca"], part.obsm["X_untrained"] = (
            of,
            embed_genes(section.table, untrained).obsm["X_stp_genes"],
        )
        part.obs = pd.DataFrame(
            {"slide": section.name, "patient": section.patient, "label": ""},
            index=part.obs_names,
            dtype=object,
        )
        if label_key in section.table.obs:
            rows = section.rows(label_key)
            part.obs.iloc[rows, 2] = section.table.obs[label_key].astype(str).to_numpy()[rows]
        parts.append(part)
    return anndata.concat(parts, join="inner", index_unique="-", uns_merge="same")


if __name__ == "__main__":
    main()
