"""Tokens of real sections, as hashes: the same on every machine and in every version.

`python tests/genes/test_token_hashes.py` writes token_hashes.json again. Run it only if a change of
the tokens is intended.
"""

import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest

from stp import Vocabulary, tl

TABLE = Path(__file__).with_name("token_hashes.json")
DATA = Path(__file__).parents[3] / "shared" / "data"
FITTED_ON = ["her2st/C1", "her2st/D1"]
SECTIONS = [
    *("her2st/C4", "her2st/D1", "her2st/F1"),
    *("other_st/bc_stahl2016_4layers", "other_st/melanoma_thrane_st", "other_st/pdac_a_st"),
    "xenium_lung/NCBI858",
]
SOURCES = "her2st: github.com/almaan/her2st; other_st: Ståhl 2016, Thrane 2018, Moncada 2020; 10x"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is absent ({SOURCES})")


def read(section):
    return anndata.read_h5ad(DATA / f"{section}.h5ad")


def fit_vocabulary():
    return Vocabulary.default().fit([read(section) for section in FITTED_ON])


def hash_tokens(section, vocabulary):
    """Return SHA-256 of the tokens of a section, as little-endian uint16, padded to 1,500."""
    adata = read(section)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # coverage, shallow spots and small panels
        tl.tokenize(adata, vocabulary)
    tokens = adata.obsm["stp_tokens"]
    assert (tokens.dtype, tokens.shape[1]) == (np.uint16, adata.obs["stp_tokens_n"].max())
    padded = np.zeros((adata.n_obs, 1500), "<u2")
    padded[:, : tokens.shape[1]] = tokens
    return hashlib.sha256(padded.tobytes()).hexdigest()


def write_table():
    """Compute all digests and hashes, and write them to token_hashes.json."""
    exact = fit_vocabulary()
    table = {
        name: {
            "digest": vocabulary.digest,
            "tokens": {section: hash_tokens(section, vocabulary) for section in SECTIONS},
        }
        for name, vocabulary in {
            "exact": exact,
            "rounded": replace(exact, round_means=True),
        }.items()
    }
    TABLE.write_text(json.dumps(table, indent=2) + "\n")


@pytest.fixture(scope="module", params=["exact", "rounded"])
def case(request):
    """Return a vocabulary, and what is written of it."""
    vocabulary = replace(fit_vocabulary(), round_means=request.param == "rounded")
    return vocabulary, json.loads(TABLE.read_text())[request.param]


def test_the_means_are_those_that_were_written(case):
    vocabulary, expected = case
    assert vocabulary.digest == expected["digest"]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_tokens_are_those_that_were_written(case, section):
    vocabulary, expected = case
    assert hash_tokens(section, vocabulary) == expected["tokens"][section]


if __name__ == "__main__":
    write_table()
