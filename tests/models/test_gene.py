import pytest
import torch
import torch.nn.functional as F

from stp import Vocabulary
from stp.models import GeneEncoder, GeneEncoderConfig
from stp.models.gene import pack, to_model_ids

SMALL = {"context_length": 12, "width": 16, "depth": 2, "n_heads": 4, "ffn_width": 24}
N_GENES, FIRST = 40, 30


@pytest.fixture(scope="module")
def genes():
    return Vocabulary.from_genes([f"g{i}" for i in range(N_GENES)])


def build(genes, **config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = GeneEncoder(GeneEncoderConfig(**SMALL | config), genes).eval()
        for parameter in encoder.parameters():  # far from any start at which mistakes are small
            torch.nn.init.normal_(parameter, std=0.5)
    return encoder.requires_grad_(False)


def spots(*lengths, width=12, seed=0):
    """Make spots of these numbers of genes, padded with 0 to `width`."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(N_GENES, generator=generator)[:length] + FIRST for length in lengths]
    return torch.stack([F.pad(row, (0, width - len(row))) for row in rows])


@pytest.fixture(scope="module", params=["mean", "reference"])
def encoder(request, genes):
    return build(genes, pooling=request.param)


def test_outputs_have_their_shapes(encoder):
    tokens = spots(12, 5, 1)
    assert encoder(tokens).shape == (3, 16)
    assert encoder.width == 16
    hidden = encoder.hidden(tokens)
    assert hidden.shape == (3, 12, 16)
    assert (
        encoder.predict(hidden[0]).shape
        == encoder.predict_from_context(hidden[0]).shape
        == (12, N_GENES + 30)
    )


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.int64])
def test_tokens_are_read_in_any_integer_type(encoder, dtype):
    tokens = spots(12, 5)
    assert torch.equal(encoder(tokens.to(dtype)), encoder(tokens))


@pytest.mark.parametrize("length", [1, 4, 9])
def test_padding_does_not_change_features(encoder, length):
    tokens = spots(length, width=length)
    alone = encoder(tokens)
    wider = F.pad(tokens, (0, 40 - length))
    among_longer = torch.cat([F.pad(tokens, (0, 12 - length)), spots(12, 10, seed=1)])
    torch.testing.assert_close(encoder(wider), alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoder(among_longer)[:1], alone, rtol=1e-5, atol=1e-5)


def test_only_real_tokens_are_attended(encoder):
    """Outputs at real positions do not depend on padding (id 1), but on masked genes (id 0)."""
    ids = spots(7, width=7)
    padded = F.pad(ids, (0, 5), value=1)
    masked = F.pad(ids, (0, 5), value=0)
    alone = encoder.hidden(ids)
    torch.testing.assert_close(encoder.hidden(padded)[:, :7], alone, rtol=1e-5, atol=1e-5)
    assert (encoder.hidden(masked)[:, :7] - alone).abs().max() > 0.01


def test_tokens_beyond_the_context_are_cut(encoder):
    tokens = spots(20, width=20)
    assert torch.equal(encoder(tokens), encoder(tokens[:, :12]))
    assert (encoder(tokens[:, :11]) - encoder(tokens[:, :12])).abs().max() > 0.01


def test_rank_matters(encoder):
    tokens = spots(12)
    assert (encoder(tokens) - encoder(tokens.flip(1))).abs().max() > 0.01


def test_a_batch_gives_what_each_spot_gives(encoder):
    tokens = spots(12, 6, 3)
    torch.testing.assert_close(
        encoder(tokens), torch.cat([encoder(row[None]) for row in tokens]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("step", [1, 4, 5])
def test_packing_changes_neither_outputs_nor_gradients(genes, monkeypatch, step):
    """One stream of spots of all lengths equals the plain form: a padded batch with a mask."""
    encoder = build(genes).double().requires_grad_(True)
    ids = to_model_ids(spots(12, 3, 7, 3, 1, 10))
    real = ids != 1
    weight = torch.randn(
        *ids.shape, encoder.width, generator=torch.Generator().manual_seed(1)
    ).double()

    def gradients(hidden):
        loss = (hidden * weight)[real].sum()
        return torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True)

    plain = encoder.hidden(ids, padding=True)
    monkeypatch.setattr("stp.models.gene.pack", lambda real, _: pack(real, step))
    packed = encoder.hidden(ids)
    torch.testing.assert_close(packed[real], plain[real], rtol=1e-10, atol=1e-10)
    pairs = zip(gradients(packed), gradients(plain), strict=True)
    used = [(a, b) for a, b in pairs if a is not None or b is not None]
    assert len(used) > 10
    for a, b in used:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_packing_computes_no_padding():
    real = torch.arange(12) < torch.tensor([12, 3, 7, 3])[:, None]
    places, groups = pack(real, 1)
    assert [(group.n, group.length, group.mask) for group in groups] == [
        (2, 3, None),
        (1, 7, None),
        (1, 12, None),
    ]
    assert sorted(places.tolist()) == real.flatten().nonzero()[:, 0].tolist()
    places, groups = pack(real, 5)  # lengths in fives, and no more than 12
    assert [(group.n, group.length) for group in groups] == [(2, 5), (1, 10), (1, 12)]
    assert [group.mask is None for group in groups] == [False, False, True]
    assert len(places) == 32


def test_mean_pooling_averages_real_tokens(genes):
    encoder, tokens = build(genes), spots(5)
    expected = encoder.hidden(spots(5, width=5)).mean(1)
    torch.testing.assert_close(encoder(tokens), expected, rtol=1e-5, atol=1e-5)


def test_reference_pooling_averages_all_positions_but_three(genes):
    encoder, tokens = build(genes, pooling="reference"), spots(5)
    ids = torch.where(tokens == 0, 1, tokens)
    torch.testing.assert_close(
        encoder(tokens), encoder.hidden(ids, padding=True)[:, 3:].mean(1), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("tied", [True, False])
def test_heads_are_tied_to_the_embedding_or_not(genes, tied):
    encoder = build(genes, tie_heads=tied)
    outputs = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    logits = outputs @ encoder.embeddings.weight[: N_GENES + 30].T + encoder.classifier_head.bias
    assert torch.allclose(encoder.predict(outputs), logits, atol=1e-5) is tied
    assert ("classifier_head.weight" in encoder.state_dict()) is not tied
    assert not torch.allclose(
        encoder.predict(outputs), encoder.predict_from_context(outputs), atol=1e-2
    )


def test_heads_start_at_the_log_frequency(genes):
    encoder = build(genes)
    frequency = torch.linspace(-5, -1, N_GENES + 30)
    encoder.start_heads(frequency)
    nothing = torch.zeros(1, 16)
    torch.testing.assert_close(encoder.predict(nothing)[0], frequency)
    torch.testing.assert_close(encoder.predict_from_context(nothing)[0], frequency)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling": "max"}, "pooling must be 'mean' or 'reference', not 'max'"),
        ({"n_heads": 5}, "multiple of n_heads"),
    ],
    ids=["pooling", "heads"],
)
def test_impossible_configs_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        GeneEncoderConfig(**SMALL | config)


def test_defaults_are_those_of_the_paper():
    config = GeneEncoderConfig()
    sizes = (config.context_length, config.width, config.depth, config.n_heads, config.ffn_width)
    assert sizes == (1500, 512, 12, 16, 1024)
