import pytest

from stp._atomic import replace


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "weights"
    replace(target, lambda file: file.write_text("old"))

    def broken(file):
        file.write_text("half of the ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(target, broken)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
