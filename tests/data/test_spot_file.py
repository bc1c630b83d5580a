from multiprocessing.reduction import ForkingPickler

import numpy as np

from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore


def test_a_file_is_pickled_as_its_name(stores, ranked):
    file = ranked([SpotStore(path) for path in stores], 200)
    size = 3 * 100 * 200 * 2
    assert size < file.path.stat().st_size < size + 200  # NumPy's header
    assert file[1].shape == (100, 200)
    pickled = ForkingPickler.dumps(file)  # as workers receive it
    assert len(pickled) < size / 50
    np.testing.assert_array_equal(ForkingPickler.loads(pickled)[2], file[2])


def test_changes_of_tokens_stay_in_the_process(stores, ranked):
    file = ranked([SpotStore(stores[0])], 8)
    before = file.path.read_bytes()
    file[0][:] = 7
    assert file.path.read_bytes() == before


def test_a_file_for_no_spots_has_no_rows(tmp_path):
    file = SpotFile(tmp_path / "none", [0, 0], 8)
    file.create()
    assert file[1].shape == (0, 8)
    assert file.writable().shape == (0, 8)
