import numpy as np
import pytest

from stp.data.samplers import GroupSampler, SpotSampler

# 20 spots, none and 23 spots
ROWS = [np.arange(0, 40, 2), np.array([], dtype=np.int64), np.arange(5, 28)]
LATTICE = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2).astype(float)


def spots_of(batches):
    return [tuple(spot) for batch in batches for spot in batch.tolist()]


ALL = {(store, row) for store, rows in enumerate(ROWS) for row in rows.tolist()}


@pytest.mark.parametrize("batch_size", [1, 5, 10, 43])
def test_batches_of_spots_are_full_and_disjoint(batch_size):
    batches = SpotSampler(ROWS, batch_size, seed=0).batches(0)
    assert [batch.shape for batch in batches] == [(batch_size, 2)] * (43 // batch_size)
    spots = spots_of(batches)
    assert len(set(spots)) == len(spots)
    assert set(spots) <= ALL
    if 43 % batch_size == 0:
        assert set(spots) == ALL


def test_fewer_spots_than_a_batch_make_none():
    assert SpotSampler(ROWS, 44, seed=0).batches(0) == []
    assert SpotSampler(ROWS, 20, seed=0, spots_per_slide=20).batches(0) != []
    assert SpotSampler(ROWS, 24, seed=0, spots_per_slide=24).batches(0) == []


@pytest.mark.parametrize("together", [2, 4])
def test_spots_of_a_slide_enter_together(together):
    sampler = SpotSampler(ROWS, 9, seed=0, spots_per_slide=together)
    batches = sampler.batches(0)
    assert {len(batch) for batch in batches} == {8}
    assert (
        len(set(spots_of(batches)))
        == 8 * len(batches)
        == (20 // together + 23 // together) * together // 8 * 8
    )
    for batch in batches:
        sets = batch.reshape(-1, together, 2)
        assert (sets[..., 0] == sets[:, :1, 0]).all()


def make_spots(seed):
    return SpotSampler(ROWS, 5, seed)


def make_groups(seed):
    return GroupSampler([LATTICE, LATTICE], [np.arange(64), np.arange(10, 50)], 18, seed)


@pytest.mark.parametrize("make", [make_spots, make_groups])
def test_batches_depend_on_seed_and_epoch_alone(make):
    sampler = make(0)
    first, second = spots_of(sampler.batches(0)), spots_of(sampler.batches(1))
    assert spots_of(sampler.batches(0)) == spots_of(make(0).batches(0)) == first
    assert first != second
    assert first != spots_of(make(1).batches(0))
    if make is make_spots:  # every epoch leaves out others
        assert set(first) != set(second)


def test_stores_are_mixed():
    batches = SpotSampler(ROWS, 20, seed=0).batches(0)
    assert all(set(batch[:, 0]) == {0, 2} for batch in batches)


def test_batches_of_groups_are_full_and_disjoint():
    batches = make_groups(0).batches(0)
    assert [batch.shape for batch in batches] == [(18, 2)] * 5  # 7 and 4 groups, two in a batch
    spots = spots_of(batches)
    assert len(set(spots)) == len(spots)
    assert {row for store, row in spots if store == 0} <= set(range(64))
    assert {row for store, row in spots if store == 1} <= set(range(10, 50))


def test_groups_stand_together_center_first():
    for batch in make_groups(3).batches(2):
        for group in batch.reshape(-1, 9, 2):
            assert len(set(group[:, 0])) == 1
            apart = np.linalg.norm(LATTICE[group[:, 1]] - LATTICE[group[0, 1]], axis=1)
            assert apart[0] == 0
            assert (np.diff(apart) >= 0).all()


def test_groups_of_a_store_do_not_depend_on_the_others():
    alone = GroupSampler([LATTICE], [np.arange(64)], 9, 0).batches(4)
    both = GroupSampler([LATTICE, LATTICE], [np.arange(64), np.arange(64)], 9, 0).batches(4)
    groups = {tuple(batch[:, 1]) for batch in both if batch[0, 0] == 0}
    assert groups == {tuple(batch[:, 1]) for batch in alone}
    assert groups != {tuple(batch[:, 1]) for batch in both if batch[0, 0] == 1}


def test_no_groups_no_batches():
    assert GroupSampler([LATTICE], [np.arange(5)], 18, 0).batches(0) == []


def test_fewer_groups_than_a_batch_make_none():
    assert GroupSampler([LATTICE], [np.arange(64)], 72, 0).batches(0) == []


class CountedStores(list):
    """Coordinates of stores; it counts how often those of a store are read."""

    n_reads = 0

    def __getitem__(self, store):
        self.n_reads += 1
        return super().__getitem__(store)


def test_the_groups_of_an_epoch_are_drawn_once():
    stores = CountedStores([LATTICE, LATTICE])
    sampler = GroupSampler(stores, [np.arange(64), np.arange(10, 50)], 18, 0)
    counted = [len(sampler.batches(epoch)) for epoch in range(3)]
    assert stores.n_reads == 6
    assert [len(sampler.batches(epoch)) for epoch in range(3)] == counted
    assert spots_of(sampler.batches(2)) == spots_of(make_groups(0).batches(2))
    assert stores.n_reads == 6
