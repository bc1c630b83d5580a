"""What is remote, and how URLs are shown."""

from pathlib import Path

import pytest

from stp._text import readable
from stp._urls import as_url, join_url, parent_url, url_name, without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/stores/C2.zarr", "s3://bucket/stores/C2.zarr"),
        ("https://host:8443/C2.zarr", "https://host:8443/C2.zarr"),
        ("https://me:hidden@host/C2.zarr", "https://host/C2.zarr"),
        ("https://hidden@host:80/C2.zarr", "https://host:80/C2.zarr"),
        ("https://me:hid@den@host/C2.zarr", "https://host/C2.zarr"),
        ("https://me:hid/den@host/C2.zarr", "https://host/C2.zarr"),
        ("s3://key:hid/den+x@bucket/C2.zarr", "s3://bucket/C2.zarr"),
        ("s3://key:12/hidden@bucket/C2.zarr", "s3://bucket/C2.zarr"),
        ("https://host/C2.zarr?X-Amz-Signature=hidden&a=1", "https://host/C2.zarr"),
        ("https://host/C2.zarr?sig=hid%2Fden#hidden", "https://host/C2.zarr"),
        ("HTTPS://me:hidden@host/a?b", "HTTPS://host/a"),
        ("zip::https://me:hidden@host/a.zip", "zip::https://host/a.zip"),
        ("https://host:80/patient@home.zarr", "https://host:80/patient@home.zarr"),
        ("s3://bucket/patient@home.zarr", "s3://bucket/patient@home.zarr"),
        ("/data/a?b@c.zarr", "/data/a?b@c.zarr"),
        (r"C:\data\a.zarr", r"C:\data\a.zarr"),
    ],
)
def test_a_url_is_shown_without_what_grants_access(url, shown):
    assert without_secrets(url) == shown
    assert readable(url) == shown
    message = f"cannot read {url} and file:///a/b: status 403"
    assert without_secrets(message) == f"cannot read {shown} and file:///a/b: status 403"


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/a.zarr", "s3://bucket/a.zarr"),
        ("https://u:p@host/a.zarr?token=1", "https://u:p@host/a.zarr?token=1"),
        ("a.zarr", None),
        ("data/s3:/a.zarr", None),
        (Path("/data/a.zarr"), None),
        ("file:///data/a.zarr", None),
        (r"C:\data\a.zarr", None),
        (None, None),
    ],
)
def test_a_path_with_a_scheme_is_remote(path, url):
    assert as_url(path) == url


def test_a_url_that_pathlib_changed_is_refused_without_its_password():
    with pytest.raises(ValueError, match=r"^https://host/a.zarr was given as a Path") as error:
        as_url(Path("https://me:hidden@host/a.zarr"))
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket/stores/C2.zarr/", "C2.zarr"),
        ("https://host/C%202.zarr?token=hidden", "C_2.zarr"),
        ("https://host/..", "store"),
        ("s3://bucket", "bucket"),
    ],
)
def test_the_name_of_a_url_is_one_of_a_folder(url, name):
    assert url_name(url) == name


def test_a_query_stays_at_the_end_of_what_lies_in_a_folder():
    assert join_url("https://host/stores/?token=1", "C2/C2.zarr") == (
        "https://host/stores/C2/C2.zarr?token=1"
    )
    assert join_url("s3://bucket", "C2.zarr") == "s3://bucket/C2.zarr"
    assert parent_url("https://host/stores/a.csv?token=a/b") == "https://host/stores?token=a/b"
    assert parent_url("s3://bucket/a.parquet") == "s3://bucket"
