from multiprocessing.reduction import ForkingPickler

import numpy as np

from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore


def test_a_file_travels_as_its_name(stores, ranked):
    file = ranked([SpotStore(path) for path in stores], 200)
    size = file.path.stat().st_size
    assert size == 3 * 100 * 200 * 2
    assert file[1].shape == (100, 200)
    travelled = ForkingPickler.dumps(file)  # as workers receive it
    assert len(travelled) < size / 50
    np.testing.assert_array_equal(ForkingPickler.loads(travelled)[2], file[2])


def test_what_is_written_to_tokens_stays_in_the_process(stores, ranked):
    file = ranked([SpotStore(stores[0])], 8)
    before = file.path.read_bytes()
    file[0][:] = 7
    assert file.path.read_bytes() == before


def test_no_spots_make_an_empty_file(tmp_path):
    assert SpotFile(tmp_path / "none", [0, 0], 8)[1].shape == (0, 8)
