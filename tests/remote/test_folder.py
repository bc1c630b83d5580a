"""What cannot be reached or read is one line within seconds, without passwords and tokens."""

import time

import pytest

from stp.data.store import SpotStore

SECONDS = 20  # on a busy machine; idle, each takes less than two


@pytest.fixture(autouse=True)
def is_fast():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SECONDS


def message_of(url, error):
    with pytest.raises(error) as raised:
        SpotStore(url)
    message = str(raised.value)
    assert "hidden" not in message and "\n" not in message
    assert raised.value.__cause__ is None  # a traceback would show it
    return message


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_a_server_that_does_not_run(scheme, web, cache, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{web.host}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    host = f"me:hidden@{web.host}" if scheme == "http" else "bucket"
    message = message_of(f"{scheme}://{host}/a.zarr", ConnectionError)
    shown = f"{scheme}://{web.host if scheme == 'http' else 'bucket'}/a.zarr"
    assert message.startswith(f"{shown} cannot be reached")


def test_a_host_that_does_not_exist(cache):
    message = message_of("https://me:hidden@no-such-host.invalid/a.zarr", ConnectionError)
    assert message.startswith("https://no-such-host.invalid/a.zarr cannot be reached")


@pytest.mark.parametrize("status", [401, 403])
def test_a_web_server_that_refuses(status, web, cache):
    web.start(REFUSED=status)
    message = message_of(f"http://{web.host}/slide0.zarr?token=hidden", PermissionError)
    assert message == (
        f"the server refuses access to http://{web.host}/slide0.zarr (status {status}); check the "
        "user, password or token in the address"
    )


def test_an_s3_server_that_refuses(own_s3, cache):
    own_s3.server.kill()
    own_s3.server.start(REFUSED=403)
    message = message_of(own_s3.url("a.zarr"), PermissionError)
    assert "refuses access to s3://" in message and "AWS_ACCESS_KEY_ID" in message


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_fails_is_asked_three_times(status, web, cache):
    web.start(REFUSED=status)
    message = message_of(f"http://{web.host}/slide0.zarr", ConnectionError)
    assert message.endswith(f"answers with status {status}")
    assert len(web.requests()) == 3


def test_an_address_without_a_store(web, s3, stores, cache):
    web.start()
    assert message_of(f"http://{web.host}/b.zarr?sig=hidden", ValueError) == (
        f"there is no store at http://{web.host}/b.zarr; check the address"
    )
    assert message_of(s3.url("b.zarr"), ValueError) == (
        f"there is no store at {s3.url('b.zarr')}; check the address"
    )


def test_a_bucket_that_does_not_exist(s3, cache):
    message = message_of("s3://other-bucket/a.zarr", ValueError)
    assert message == (
        "there is no store at s3://other-bucket/a.zarr (the bucket does not exist); check the "
        "address"
    )


def test_a_public_bucket_needs_no_login(s3, stores, cache, monkeypatch):
    url = s3.put(stores[0])
    s3.files.chmod(url, "public-read", recursive=True)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    assert len(SpotStore(url)) == 100


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://key:hid/hidden@bucket/a.zarr", "has a user or password, which s3:// does not take"),
        ("s3://bucket/a.zarr?sig=hidden", "has a query, which s3:// does not take"),
        ("nowhere://bucket/a.zarr", "Protocol not known: nowhere"),
        ("zip::https://me:hidden@host/a.zip", "is a chain of addresses"),
    ],
)
def test_an_address_that_cannot_be_used(url, text, cache):
    assert text in message_of(url, ValueError)


def test_a_web_page_is_no_store(web, cache, tmp_path):
    (tmp_path / "site" / "a.zarr").mkdir(parents=True)
    (tmp_path / "site" / "a.zarr" / "zarr.json").write_text("<html>Log in</html>")
    server = type(web)(tmp_path / "requests", tmp_path / "site").start()
    try:
        message = message_of(f"http://{server.host}/a.zarr", ValueError)
    finally:
        server.kill()
    assert "is no store: its zarr.json is not that of a zarr group" in message


def test_a_login_and_a_token_are_sent_and_not_shown(web, cache, caplog, capsys):
    web.start(LOGIN="me:hidden%", TOKEN="hid+den/x")
    url = f"http://me:hidden%25@{web.host}/slide0.zarr?token=hid+den/x"
    store = SpotStore(url)
    assert store.source == f"http://{web.host}/slide0.zarr"
    shown = capsys.readouterr()
    assert "Downloading" in shown.err
    assert "hid" not in shown.err + shown.out
    assert not [path for path in cache.rglob("*") if "hid" in path.name]
    wrong = message_of(url.replace("hid+den", "hidden"), PermissionError)
    assert "(status 403)" in wrong
