"""Named collections of gene sets: through decoupler, and clear without a network."""

import logging
import time

import pandas as pd
import pytest

from stp import io


@pytest.fixture
def server_answers(monkeypatch, tmp_path):
    """Let an address of a local file stand for the server, which tests cannot reach."""
    (tmp_path / "index.html").write_text("")
    monkeypatch.setattr("stp.io._gene_sets.SERVER", (tmp_path / "index.html").as_uri())


def test_without_a_network_one_line_says_so_at_once(monkeypatch):
    monkeypatch.setattr("stp.io._gene_sets.SERVER", "http://127.0.0.1:9")  # where nothing listens
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"'hallmark' cannot be .*refused; .*read_gene_sets"):
        io.download_gene_sets("hallmark")
    assert time.monotonic() - start < 5


def test_a_collection_is_returned_with_its_terms(monkeypatch, server_answers, caplog):
    decoupler = pytest.importorskip("decoupler")
    asked = {}

    def hallmark(organism, license):
        asked.update(organism=organism, license=license)
        return pd.DataFrame({"source": ["HYPOXIA", "HYPOXIA", "E2F"], "target": ["A", "B", "C"]})

    monkeypatch.setattr(decoupler.op, "hallmark", hallmark)
    with caplog.at_level(logging.INFO, logger="stp"):
        gene_sets = io.download_gene_sets("hallmark", organism="mouse", use="commercial")
    assert gene_sets == {"HYPOXIA": ["A", "B"], "E2F": ["C"]}
    assert asked == {"organism": "mouse", "license": "commercial"}
    assert "Downloaded 2 gene sets: MSigDB hallmark sets (Liberzon et al. 2015), CC BY 4.0." in (
        caplog.text
    )


def test_a_server_that_fails_later_is_the_same_error(monkeypatch, server_answers):
    decoupler = pytest.importorskip("decoupler")

    def progeny(**options):
        raise OSError("reset")

    monkeypatch.setattr(decoupler.op, "progeny", progeny)
    with pytest.raises(ConnectionError, match="gene sets 'progeny' cannot be .*: reset; download"):
        io.download_gene_sets("progeny")


def test_unknown_collections_and_uses_are_refused():
    with pytest.raises(ValueError, match="no collection 'reactome'; choose from hallmark, progeny"):
        io.download_gene_sets("reactome")
    with pytest.raises(ValueError, match="use must be one of .*, not 'free'"):
        io.download_gene_sets("hallmark", use="free")
