import pytest

from stp._atomic import write_atomically


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "weights"
    write_atomically(target, lambda file: file.write_text("old"))

    def broken(file):
        file.write_text("half of the ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, broken)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
