import io
import logging
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from stp import Vocabulary
from stp.data.masked_tokens import TokenDataset
from stp.data.samplers import SpotIndex
from stp.data.store import SpotStore
from stp.models import GeneEncoder, GeneEncoderConfig
from stp.train import AlignConfig
from stp.train.engine.batch_plan import BatchPlan
from stp.train.engine.loop import Training, run_training
from stp.train.engine.processes import Processes
from stp.train.engine.run_dir import RunDir
from stp.train.engine.steps import learning_rate, make_optimizer, training_step
from stp.train.tasks import MaskedGenes, NeighborhoodGenes

ALONE = Processes(0, 1, torch.device("cpu"))
FREE = AlignConfig(clip_norm=1e9, precision="fp32")


# ---- schedule and optimizer


def test_schedule_warms_up_then_follows_a_cosine_to_the_minimum():
    config = AlignConfig(learning_rate=1.0, min_learning_rate=0.1, warmup_steps=20)
    rates = [learning_rate(step, 220, config) for step in range(220)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[20] == 1.0
    assert rates[70] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates[120] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a > b for a, b in zip(rates[20:], rates[21:], strict=False))
    assert learning_rate(220, 220, config) == learning_rate(500, 220, config) == pytest.approx(0.1)


@pytest.mark.parametrize(("total", "warmup"), [(1000, 100), (15, 1), (9, 0), (1, 0)])
def test_warm_up_is_at_most_a_tenth_of_all_steps(total, warmup):
    config = AlignConfig(learning_rate=1.0, min_learning_rate=0.1, warmup_steps=5000)
    rates = [learning_rate(step, total, config) for step in range(total)]
    assert rates[: warmup + 1] == pytest.approx(
        [(step + 1) / warmup for step in range(warmup)] + [1.0]
    )


def test_without_a_minimum_the_rate_stays():
    config = AlignConfig(learning_rate=1.0, min_learning_rate=None, warmup_steps=0)
    assert [learning_rate(step, 3, config) for step in range(5)] == [1.0] * 5


def test_only_matrices_decay(stamp):
    stamp.image_encoder.backbone.patch_embed.requires_grad_(False)
    decayed, free = make_optimizer(stamp, AlignConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in stamp.named_parameters()}
    assert all(
        name.endswith(("bias", "norm.weight", "norm1.weight", "norm2.weight", "logit_scale"))
        for name in (names[id(parameter)] for parameter in free["params"])
    )
    assert {names[id(parameter)].rsplit(".", 1)[-1] for parameter in decayed["params"]} >= {
        "weight",
        "in_proj_weight",
    }
    assert len(decayed["params"]) + len(free["params"]) == sum(
        p.requires_grad for p in stamp.parameters()
    )


# ---- one step


@pytest.fixture
def dataset(stores, vocabulary, ranked):
    opened = [SpotStore(stores[0])]
    return TokenDataset(opened, vocabulary, ranked(opened, 32), fraction=0.15, seed=0)


def batch_of(dataset, *spots):
    return dataset[SpotIndex(0, np.column_stack([np.zeros(len(spots), int), spots]))]


@pytest.fixture(params=["masked", "neighborhood"])
def task(request, stamp):
    if request.param == "masked":
        return MaskedGenes(stamp.gene_encoder)
    return NeighborhoodGenes(stamp.gene_encoder, context="pooled", targets="masked", group_size=2)


def test_micro_batches_give_the_gradient_of_one_batch(task, dataset):
    """The parts have different numbers of masked tokens."""
    parts = [(0, 1, 2, 3), (4, 5), (6, 7, 8, 9, 10, 11)]
    assert len({task.counts(batch_of(dataset, *part))["masked"] for part in parts}) == 3
    results = []
    for batches in ([batch_of(dataset, *range(12))], [batch_of(dataset, *part) for part in parts]):
        losses = training_step(
            task, torch.optim.SGD(task.parameters(), lr=0.0), batches, FREE, ALONE
        )
        results.append(
            (losses, {name: p.grad for name, p in task.named_parameters() if p.grad is not None})
        )
    (losses, gradients), (micro_losses, micro_gradients) = results
    assert micro_losses == pytest.approx(losses, rel=1e-5)
    assert len(gradients) > 20
    torch.testing.assert_close(micro_gradients, gradients, rtol=1e-4, atol=1e-6)


def test_gradients_do_not_pile_up_over_steps(task, dataset):
    batch, optimizer = batch_of(dataset, *range(6)), torch.optim.SGD(task.parameters(), lr=0.0)
    training_step(task, optimizer, [batch], FREE, ALONE)
    first = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
    training_step(task, optimizer, [batch], FREE, ALONE)
    second = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize("clip_norm", [0.01, 1e9])
def test_gradient_is_clipped(task, dataset, clip_norm):
    config = AlignConfig(clip_norm=clip_norm)
    training_step(
        task,
        torch.optim.SGD(task.parameters(), lr=0.0),
        [batch_of(dataset, *range(6))],
        config,
        ALONE,
    )
    norm = torch.stack([p.grad.norm() for p in task.parameters() if p.grad is not None]).norm()
    assert (norm <= 0.0101) == (clip_norm == 0.01)


def test_a_step_lowers_the_loss_on_its_batch(task, dataset):
    batches, optimizer = (
        [batch_of(dataset, *range(6))],
        torch.optim.AdamW(task.parameters(), lr=1e-3),
    )
    losses = [training_step(task, optimizer, batches, FREE, ALONE)["loss"] for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("when", [0, 1], ids=["first-micro-batch", "second-micro-batch"])
def test_a_loss_that_is_not_finite_stops_before_the_step(stamp, dataset, when):
    task = MaskedGenes(stamp.gene_encoder)
    batches = [batch_of(dataset, 0, 1), batch_of(dataset, 2, 3)]
    batches[when]["chosen"][:] = False  # a mean over nothing
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    with pytest.raises(FloatingPointError, match="the loss is nan, of these: .*masked"):
        training_step(task, torch.optim.AdamW(task.parameters(), lr=1.0), batches, FREE, ALONE)
    assert all(torch.equal(before[name], tensor) for name, tensor in task.state_dict().items())


class Line(nn.Module):
    """A task with one weight, dropout as a backbone may have it, and a record of its batches."""

    title = "Line"

    def __init__(self, power=2.0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.dropout = nn.Dropout(0.5)
        self.power = power
        self.batches = []

    def forward(self, batch):
        self.batches.append(batch["x"].tolist())
        error = self.dropout(batch["x"][:, None].float()) * self.weight - 1
        loss = error.abs().pow(self.power).mean()
        return {"error": loss, "loss": loss}

    def counts(self, batch):
        return {"error": len(batch["x"])}


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    task = Line(power=0.5).eval()
    task.weight.data.fill_(1.0)  # the root of 0 is finite, its slope is not
    with pytest.raises(
        FloatingPointError, match="the gradient is not finite at these losses: {'error': 0.0"
    ):
        training_step(
            task, torch.optim.SGD(task.parameters(), lr=1.0), [{"x": torch.ones(2)}], FREE, ALONE
        )
    assert task.weight.tolist() == [1, 1, 1]


# ---- the loop


class Numbers(torch.utils.data.Dataset):
    names = ("numbers",)

    def __getitem__(self, index):
        return {"x": torch.from_numpy(index.spots[:, 1] + 100 * index.epoch)}


class InOrder:
    unit = 1

    def __init__(self, n_batches):
        self.n_batches = n_batches

    def batches(self, epoch):
        rows = np.arange(2 * self.n_batches)
        return list(np.column_stack([np.zeros_like(rows), rows]).reshape(-1, 2, 2))


def train_line(
    folder,
    *,
    n_batches=5,
    sampler=None,
    plan=None,
    log_every=3,
    scores=None,
    patience=None,
    task=None,
    seed=0,
):
    """Train `Line`; return it, its run, and the weights at each call of `save_model`."""
    task = task or Line()
    saved_weights = []
    validate = None
    if scores is not None:
        validate = iter([{"recall": score, "score": score} for score in scores]).__next__
    config = AlignConfig(learning_rate=0.1, log_every=log_every, checkpoint_every=2, seed=seed)
    with RunDir(folder, {}, resume=True, processes=ALONE) as run:
        run_training(
            Training(
                task=task,
                dataset=Numbers(),
                sampler=sampler or InOrder(n_batches),
                plan=plan or BatchPlan(2, 2, 1),
                config=config,
                run=run,
                validate=validate,
                patience=patience,
                save_model=lambda scores: saved_weights.append(task.weight.detach().clone()),
            )
        )
    return task, run, saved_weights


def test_loop_reads_every_batch_of_every_epoch_in_order(tmp_path):
    task, _, _ = train_line(tmp_path)
    assert task.batches == [
        [2 * i + 100 * epoch, 2 * i + 1 + 100 * epoch] for epoch in range(2) for i in range(5)
    ]


def test_loop_drops_batches_that_fill_no_step(tmp_path):
    task, run, _ = train_line(tmp_path, plan=BatchPlan(1, 2, 2))
    assert task.batches == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert run.metrics()[-1]["step"] == 2


def test_loop_logs_every_few_steps_and_at_the_end_of_an_epoch(tmp_path):
    _, run, _ = train_line(tmp_path)
    lines = run.metrics()
    assert [(line["epoch"], line["step"]) for line in lines] == [
        (0, 3),
        (0, 5),
        (1, 6),
        (1, 9),
        (1, 10),
    ]
    config = AlignConfig(learning_rate=0.1)
    for line in lines:
        assert line["learning_rate"] == learning_rate(line["step"] - 1, 10, config)
        assert set(line) == {
            "phase",
            "epoch",
            "step",
            "split",
            "error",
            "loss",
            "learning_rate",
            "spots_per_second",
        }


def test_without_a_terminal_an_epoch_is_a_line_of_the_log(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(logging.getLogger("stp"), "propagate", True)
    train_line(tmp_path, scores=[0.25, 0.5])
    for epoch, score in ((1, "0.250"), (2, "0.500")):
        assert re.search(
            rf"Line: epoch {epoch} of 2, loss \d+\.\d{{3}}; validation: recall {score}\n",
            caplog.text,
        )


def test_loop_ends_with_the_state_of_the_next_phase(tmp_path):
    task, _, saved_weights = train_line(tmp_path)
    with RunDir(tmp_path, {}, resume=True, processes=ALONE) as run:
        checkpoint = run.checkpoint
    assert (checkpoint.phase, checkpoint.step, checkpoint.optimizer) == (1, 0, None)
    assert torch.equal(checkpoint.task["weight"], task.weight)
    assert len(saved_weights) == 1
    assert torch.equal(saved_weights[0], task.weight)


@pytest.mark.parametrize(
    ("scores", "best_epochs"),
    [([1, 3, 2, 3], [0, 1]), ([-3, -2, -1, -4], [0, 1, 2]), ([2, 1, 1, 0], [0])],
    ids=str,
)
def test_loop_keeps_the_best_weights_by_validation(tmp_path, scores, best_epochs):
    plan = BatchPlan(4, 2, 1)
    _, run, saved_weights = train_line(tmp_path / "validated", plan=plan, scores=scores)
    _, _, by_epoch = train_line(tmp_path / "improving", plan=plan, scores=[1, 2, 3, 4])
    assert len(by_epoch) == 4
    best_weights = [by_epoch[epoch].tolist() for epoch in best_epochs]
    assert [weights.tolist() for weights in saved_weights] == best_weights
    validated = [
        (line["step"], line["score"]) for line in run.metrics() if line["split"] == "validation"
    ]
    assert validated == list(zip([5, 10, 15, 20], scores, strict=True))


def test_loop_stops_when_scores_no_longer_get_better(tmp_path):
    plan = BatchPlan(9, 2, 1)
    _, run, _ = train_line(tmp_path / "stopped", plan=plan, scores=[1, 3, 2, 3], patience=2)
    assert run.metrics()[-1]["epoch"] == 3
    _, run, _ = train_line(tmp_path / "unvalidated", plan=plan, patience=2)
    assert run.metrics()[-1]["epoch"] == 8


class Interrupted(Exception):
    pass


class Stopping(Line):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def forward(self, batch):
        if len(self.batches) == self.after:
            raise Interrupted
        return super().forward(batch)


@pytest.mark.parametrize("after", range(1, 12, 2))
def test_loop_resumes_as_if_never_stopped_even_where_dropout_is_drawn(tmp_path, after):
    plan = BatchPlan(3, 2, 1)
    scores = [1, 3, 2]
    whole, whole_run, whole_saved = train_line(
        tmp_path / "whole", plan=plan, n_batches=4, scores=scores
    )
    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        train_line(folder, plan=plan, n_batches=4, scores=scores, task=Stopping(after))
    torch.rand(7)  # another process is in another random state
    epoch = after // 4
    task, run, saved = train_line(folder, plan=plan, n_batches=4, scores=scores[epoch:])
    assert torch.equal(task.weight, whole.weight)
    assert timeless(run) == timeless(whole_run)
    whole_weights = [weights.tolist() for weights in whole_saved[epoch:]]
    assert [weights.tolist() for weights in saved] == whole_weights


def timeless(run):
    return [
        {name: value for name, value in line.items() if name != "spots_per_second"}
        for line in run.metrics()
    ]


def test_loop_depends_on_the_seed_and_leaves_the_random_state_alone(tmp_path):
    state = torch.get_rng_state()
    same = [train_line(tmp_path / f"same{i}", seed=3)[0].weight for i in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], train_line(tmp_path / "other", seed=4)[0].weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_epoch_without_a_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="an epoch has no full batch"):
        train_line(tmp_path, n_batches=1, plan=BatchPlan(1, 2, 2))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_that_of_the_config(precision):
    encoder = GeneEncoder(
        GeneEncoderConfig(context_length=8, width=16, depth=1, n_heads=2, ffn_width=16),
        Vocabulary.from_genes([f"g{i}" for i in range(20)]),
    )
    dtypes = []
    encoder.encoder["layers"][0].linear1.register_forward_hook(
        lambda _, __, output: dtypes.append(output.dtype)
    )
    ids = torch.arange(30, 38)[None]
    batch = {"inputs": ids, "targets": ids, "chosen": torch.ones(1, 8, dtype=torch.bool)}
    config = AlignConfig(precision=precision)
    training_step(
        MaskedGenes(encoder), torch.optim.SGD(encoder.parameters(), lr=0.0), [batch], config, ALONE
    )
    assert dtypes == [torch.bfloat16 if precision == "bf16" else torch.float32]


# ---- another number of processes, which makes steps of another size


class Slices:
    """Batches of a number of the 24 spots, in order."""

    unit = 1

    def __init__(self, size):
        self.size = size

    def batches(self, epoch):
        rows = np.arange(24 // self.size * self.size)
        return list(np.column_stack([np.zeros_like(rows), rows]).reshape(-1, self.size, 2))


class Killed(BaseException):
    """As SIGKILL: nothing is saved."""


class LineThatDies(Line):
    def __init__(self, n_batches):
        super().__init__()
        self.n_batches = n_batches

    def forward(self, batch):
        if len(self.batches) == self.n_batches:
            raise Killed
        return super().forward(batch)


@pytest.mark.parametrize(
    ("size", "n_taken", "new_size", "epoch", "first_spot"),
    [
        (8, 2, 4, 0, 16),  # half as many processes
        (4, 2, 8, 0, 8),  # twice as many
        (4, 8, 8, 1, 8),  # in the second epoch
        (8, 3, 4, 1, 0),  # between two epochs
        (8, 2, 5, 0, 15),  # a part of a step is taken again
        (4, 4, 12, 0, 12),
        (8, 2, 16, 0, 0),  # an epoch that has one step, now
        (8, 2, 8, 0, 16),  # as many
    ],
)
def test_steps_of_another_size_go_on_at_the_same_spot(
    size, n_taken, new_size, epoch, first_spot, tmp_path
):
    def train(size, task):
        plan = BatchPlan(2, size, 1)
        return train_line(tmp_path, plan=plan, task=task, sampler=Slices(size), log_every=1)

    with pytest.raises(Killed):
        train(size, LineThatDies(n_taken))
    task, run, _ = train(new_size, Line())
    assert task.batches[0] == [100 * epoch + first_spot + n for n in range(new_size)]
    assert task.batches[-1][-1] == 100 + 24 // new_size * new_size - 1
    assert run.metrics()[-1]["step"] == 2 * (24 // new_size)
    assert len(run.metrics()) == n_taken + len(task.batches)
