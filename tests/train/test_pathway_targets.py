"""Images aligned with gene sets, in place of genes or together with them."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from stp import tl
from stp.cli.recipe import read_recipe
from stp.models import GeneEncoder, Stamp
from stp.train import AlignConfig, align
from stp.train.validation import recall

GMT = (
    "EPITHELIUM\tabout\tEPCAM\tKRT8\tKRT18\tERBB2\tRPL3\n"
    "STROMA\tabout\tCOL1A1\tCOL1A2\tDCN\tLUM\tRPL4\n"
    "IMMUNE\tabout\tPTPRC\tCD3D\tCD3E\tMS4A1\tRPL5\n"
    "SMALL\tabout\tPTPRC\n"
)
NAMES = ["EPITHELIUM", "STROMA", "IMMUNE"]


@pytest.fixture(scope="module")
def gmt(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "sets.gmt"
    path.write_text(GMT)
    return path


@pytest.fixture(scope="module")
def config(gmt):
    return AlignConfig(
        targets="pathways",
        gene_sets=str(gmt),
        epochs=8,
        batch_size=20,
        accumulate=1,
        learning_rate=2e-3,
        min_genes=5,
        projection_width=32,
    )


@pytest.fixture
def genes(tiny_config, vocabulary):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GeneEncoder(tiny_config.gene, vocabulary)


@pytest.fixture(scope="module")
def aligned(stores, tiny_config, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pathways")
    stamp = align(
        stores[:2], folder, image_encoder=tiny_config.image, config=config, validation=stores[2:]
    )
    return stamp, folder


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_without_a_gene_encoder(aligned):
    stamp, folder = aligned
    assert stamp.gene_encoder is None
    lines = metrics(folder)
    assert {"patch_pathway", "region_pathway", "patch_region", "localization"} < lines[0].keys()
    scores = [line["recall@5"] for line in lines if line["split"] == "validation"]
    assert max(scores) > 1.7 * lines[-1]["chance@5"]


def test_set_names_are_in_the_config_and_scores_are_standardized_on_training_spots(
    aligned, stores, slide_of
):
    stamp, folder = aligned
    saved_config = json.loads((folder / "config.json").read_text())["config"]
    assert saved_config["pathways"] == dict.fromkeys(NAMES, 5)
    assert saved_config["gene"] is None
    activity = [
        tl.embed_pathways(slide_of(seed)[0], stamp, copy=True).obsm["X_stp_pathways"]
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(np.concatenate(activity).mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.concatenate(activity).std(axis=0), 1, atol=1e-3)


def test_stopped_and_resumed_it_ends_the_same(aligned, stores, tiny_config, config, tmp_path):
    stopping = dataclasses.replace(config, checkpoint_every=7)
    arguments = {"image_encoder": tiny_config.image, "config": stopping, "validation": stores[2:]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stp.train.alignment.recall", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            align(stores[:2], tmp_path, **arguments)
    again, whole = align(stores[:2], tmp_path, **arguments).state_dict(), aligned[0].state_dict()
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def stop_after(n_epochs):
    """Return `recall` that interrupts the validation of a later epoch."""
    calls = itertools.count()

    def interrupted_recall(*arguments):
        if next(calls) == n_epochs:
            raise KeyboardInterrupt
        return recall(*arguments)

    return interrupted_recall


def test_genes_and_pathways_together(stores, genes, tiny_config, config, tmp_path):
    both = dataclasses.replace(config, targets="both", epochs=1, micro_batch=8)
    arguments = {"gene_encoder": genes, "image_encoder": tiny_config.image, "config": both}
    stamp = align(stores[:2], tmp_path, validation=stores[2:], **arguments)
    lines = metrics(tmp_path)
    assert {"patch_gene", "region_gene", "patch_pathway", "region_pathway"} < lines[0].keys()
    assert {"recall@5", "pathways_recall@5"} < lines[-1].keys()
    again = Stamp.from_pretrained(tmp_path)
    assert again.digest == stamp.digest
    assert (again.gene_encoder is None, list(again.pathway_encoder.sets)) == (False, NAMES)


def test_other_sets_under_the_same_name_are_another_run(
    aligned, stores, tiny_config, config, gmt, tmp_path
):
    other = tmp_path / "sets.gmt"
    other.write_text(GMT.replace("RPL3", "RPL6"))
    arguments = {
        "image_encoder": tiny_config.image,
        "config": dataclasses.replace(config, gene_sets=str(other)),
    }
    with pytest.raises(ValueError, match=r"other settings \(gene_sets\)"):
        align(stores[:2], aligned[1], validation=stores[2:], **arguments)


def test_what_does_not_fit_together_is_refused(
    stores, genes, tiny_config, config, vocabulary, tmp_path
):
    with pytest.raises(ValueError, match="need gene_sets"):
        AlignConfig(targets="pathways")
    with pytest.raises(ValueError, match="take none"):
        AlignConfig(gene_sets="sets.gmt")
    with pytest.raises(
        ValueError, match="targets must be 'genes', 'pathways' or 'both', not 'gene'"
    ):
        AlignConfig(targets="gene")
    with pytest.raises(ValueError, match="losses must be some of"):
        AlignConfig(losses=("patch_gene",))
    with pytest.raises(ValueError, match="targets 'pathways' take no gene_encoder"):
        align(stores, tmp_path, gene_encoder=genes, config=config)
    with pytest.raises(ValueError, match="targets 'genes' need gene_encoder"):
        align(stores, tmp_path)
    with pytest.raises(ValueError, match="brings its own vocabulary; pass it alone"):
        align(stores, tmp_path, gene_encoder=genes, vocabulary=vocabulary)
    assert not list(tmp_path.iterdir())


def test_a_recipe_needs_no_gene_encoder(stores, gmt, vocabulary):
    folder = gmt.parent
    vocabulary.save(folder / "vocabulary.parquet")
    (folder / "slide.zarr").symlink_to(stores[0])
    path = folder / "align.toml"
    path.write_text(
        'stores = ["slide.zarr"]\noutput_dir = "out"\n'
        'targets = "pathways"\ngene_sets = "sets.gmt"\n'
        'losses = ["patch_target", "localization"]\nvocabulary = "vocabulary.parquet"\n'
    )
    arguments = read_recipe(path, "align").keywords
    assert arguments["config"].gene_sets == str(gmt)
    assert arguments["config"].losses == ("patch_target", "localization")
    assert arguments["vocabulary"].digest == vocabulary.digest
    assert arguments["gene_encoder"] is None
