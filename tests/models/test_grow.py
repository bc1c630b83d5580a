from dataclasses import replace

import numpy as np
import pytest
import torch

from stp import Vocabulary, tl
from stp.models import GeneEncoder, Stamp, grow


@pytest.fixture
def larger(vocabulary):
    """The vocabulary with two more genes, from another vocabulary with other means."""
    more = Vocabulary(
        ["NEW1", vocabulary.gene_ids[0], "NEW2"],
        ["N1", "X", "N2"],
        means=[2.0, 9.0, 3.0],
        n_detected=[1, 1, 1],
    )
    return vocabulary.grow(more)


def test_a_vocabulary_grows_at_its_end(vocabulary, larger):
    assert larger.gene_ids.tolist() == [*vocabulary.gene_ids, "NEW1", "NEW2"]
    np.testing.assert_array_equal(larger.means, [*vocabulary.means, 2.0, 3.0])
    assert larger.encode(["N1", "N2"]).tolist() == [len(vocabulary), len(vocabulary) + 1]
    assert larger.digest != vocabulary.digest
    assert vocabulary.grow(vocabulary).digest == vocabulary.digest
    with pytest.raises(ValueError, match="one vocabulary has means and the other has none"):
        vocabulary.grow(Vocabulary.from_genes(["NEW"]))
    with pytest.raises(TypeError, match="Vocabulary.from_genes"):
        vocabulary.grow(["NEW"])


def test_names_of_two_genes_stay_ambiguous():
    first = Vocabulary(["G1"], ["A"], aliases={"X": ("G1",)})
    second = Vocabulary(["G2", "G1"], ["B", "A"], aliases={"X": ("G2",), "Y": ("G1",)})
    grown = first.grow(second)
    assert dict(grown.aliases) == {"X": ("G1", "G2")}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("order", ["at the end", "reversed"])
def test_known_genes_keep_their_embedding(tiny_config, vocabulary, larger, adata, tied, order):
    model = GeneEncoder(replace(tiny_config.gene, tie_heads=tied), vocabulary).eval()
    if order == "reversed":
        larger = replace(
            larger,
            gene_ids=larger.gene_ids[::-1],
            symbols=larger.symbols[::-1],
            means=larger.means[::-1],
            n_detected=larger.n_detected[::-1],
        )
    grown = grow(model, larger)
    ids = torch.tensor([[30, 35, 41]])
    place = {gene: number for number, gene in enumerate(larger.gene_ids)}
    moved = torch.tensor(
        [[30 + place[vocabulary.gene_ids[token - 30]] for token in ids[0].tolist()]]
    )
    with torch.no_grad():
        torch.testing.assert_close(grown(moved), model(ids))
        scores = grown.predict(grown(moved))
        scores_before = model.predict(model(ids))
    torch.testing.assert_close(scores[0, moved[0]], scores_before[0, ids[0]])
    new = grown.embeddings.weight[30 + place["NEW1"]]
    torch.testing.assert_close(new, model.embeddings.weight[30 : 30 + len(vocabulary)].mean(0))
    torch.testing.assert_close(grown.embeddings.weight[-5:], model.embeddings.weight[-5:])
    assert grown.card.untrained_genes == ("NEW1", "NEW2") and not model.card.untrained_genes
    assert grown.digest != model.digest


def test_a_grown_stamp_records_new_genes_and_refuses_old_tokens(stamp, larger, adata, tmp_path):
    grow(stamp, larger).save_pretrained(tmp_path)
    grown = Stamp.from_pretrained(tmp_path)
    assert grown.card.untrained_genes == ("NEW1", "NEW2")
    assert "2 genes were added and not trained: NEW1, NEW2" in (tmp_path / "README.md").read_text()
    tl.tokenize(adata, stamp, context_length=32)
    with pytest.raises(ValueError, match="made with another vocabulary than the model's"):
        tl.embed_genes(adata, grown)
    tl.embed_genes(adata, stamp)
    before = adata.obsm["X_stp_genes"]
    tl.tokenize(adata, grown, context_length=32)
    tl.embed_genes(adata, grown)
    np.testing.assert_allclose(adata.obsm["X_stp_genes"], before, rtol=1e-4, atol=1e-5)


def test_a_vocabulary_that_lost_genes_is_refused(stamp, vocabulary):
    fewer = Vocabulary(vocabulary.gene_ids[1:], vocabulary.symbols[1:], means=vocabulary.means[1:])
    with pytest.raises(
        ValueError,
        match=f"lacks genes of the model: {vocabulary.gene_ids[0]}; Vocabulary.grow keeps",
    ):
        grow(stamp, fewer)
