import logging

import anndata
import numpy as np
import pytest

from stp import Vocabulary
from stp.data.gene_sets import read_gene_sets
from stp.data.store import SpotStore
from stp.io import from_anndata, write_store

GMT = (
    "EPITHELIUM\tabout\tEPCAM\tKRT8\tKRT18\tERBB2\tRPL3\tNOT_A_GENE\n"
    "STROMA\tabout\tCOL1A1\tCOL1A2\tDCN\tLUM\tRPL4\tTP53\n"
    "SMALL\tabout\tPTPRC\tCD3D\tCD3E\tMS4A1\n"
)


@pytest.fixture
def gmt(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text(GMT)
    return path


@pytest.fixture
def opened(stores):
    return [SpotStore(path) for path in stores]


def test_sets_have_known_and_measured_genes_and_the_others_are_logged(gmt, opened, caplog):
    vocabulary = Vocabulary.default()
    with caplog.at_level(logging.INFO, logger="stp"):
        sets = read_gene_sets(gmt, vocabulary, opened)
    assert {name: sorted(vocabulary.symbols[genes]) for name, genes in sets.items()} == {
        "EPITHELIUM": ["EPCAM", "ERBB2", "KRT18", "KRT8", "RPL3"],
        "STROMA": ["COL1A1", "COL1A2", "DCN", "LUM", "RPL4"],  # TP53 is known, and no store has it
    }
    messages = " ".join(caplog.messages)
    assert "Using 2 of 3 gene sets of" in messages
    assert "2 genes that no store measures or the vocabulary lacks: NOT_A_GENE, TP53." in messages
    assert "Left out 1 gene set of" in messages
    assert "genes that the stores measure: SMALL." in messages


def test_a_file_that_fits_nothing_is_refused(tmp_path, opened):
    (tmp_path / "mouse.gmt").write_text("A\tabout\tEpcam1\tKrt8x\tNone\n")
    with pytest.raises(
        ValueError, match="none of the 1 gene sets of .* has 5 genes that the stores measure"
    ):
        read_gene_sets(tmp_path / "mouse.gmt", Vocabulary.default(), opened)
    with pytest.raises(FileNotFoundError, match="no gene sets at .*absent.gmt"):
        read_gene_sets(tmp_path / "absent.gmt", Vocabulary.default(), opened)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A about EPCAM KRT8", "line 1 has no name, description and genes divided by tabs"),
        ("A\tabout\tEPCAM\n\nA\tabout\tKRT8\n", "several gene sets 'A'"),
    ],
)
def test_a_file_of_another_format_is_refused(text, message, tmp_path, opened):
    (tmp_path / "sets.gmt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_gene_sets(tmp_path / "sets.gmt", Vocabulary.default(), opened)


@pytest.mark.parametrize(
    ("name", "n_sets", "n_usable"),
    [("hallmark_v7.0_46of50sets.gmt", 46, 46), ("ReactomePathways.gmt", 1448, 1100)],
)
def test_published_sets_with_a_real_section(name, n_sets, n_usable, real, tmp_path, caplog):
    adata = anndata.read_h5ad(real("her2st", "C6.h5ad"))[:5].copy()
    write_store(
        from_anndata(adata, None, um_per_px=1.0, spot_diameter_um=100), tmp_path / "C6.zarr"
    )
    with caplog.at_level(logging.INFO, logger="stp"):
        sets = read_gene_sets(
            real("genesets", name), Vocabulary.default(), [SpotStore(tmp_path / "C6.zarr")]
        )
    assert len(sets) >= n_usable
    assert name[:1] != "R" or "ABC transporter disorders" in sets  # names hold spaces
    assert f"{len(sets)} of {n_sets} gene sets" in caplog.text
    assert all(len(np.unique(genes)) == len(genes) >= 5 for genes in sets.values())
