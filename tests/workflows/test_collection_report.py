"""The report of a collection: one page, without network, that shows what needs a look."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stp.data.collection import Collection
from stp.io._store_measures import measure_store
from stp.workflows.collection_report import write_report

SCRIPT = "<script>alert('x')</script>"


class Page(HTMLParser):
    """The tags, links and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.links = []
        self.texts = []
        self.images = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [values[name] for name in ("href", "src", "srcset") if values.get(name)]
        if tag == "img":
            self.images.append(values["src"])

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def collection(stores):
    names = [SCRIPT, "second", "third"]
    table = pd.DataFrame([measure_store(path) for path in stores])
    table.insert(0, "name", names)
    table["path"] = [str(path) for path in stores]
    table["patient"] = ["A", "A", "B"]
    table["organ"] = ["breast", "breast & lung", None]
    return Collection(table, stores[0].parent)


def report(collection, tmp_path, **more):
    write_report(collection, tmp_path / "report.html", **more)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_names_from_tables_are_text_and_no_tags(collection, tmp_path):
    failures = [{"name": SCRIPT, "path": SCRIPT, "error": SCRIPT}]
    pairs = pd.DataFrame(
        [(SCRIPT, "second", SCRIPT, 0.5, SCRIPT)],
        columns=["first", "second", "kind", "share", "note"],
    )
    table = collection.table.assign(source=SCRIPT, platform=SCRIPT, problem=SCRIPT)
    page = report(
        Collection(table, collection.folder), tmp_path, failures=failures, duplicates=pairs
    )
    assert "script" not in page.tags
    assert page.text.count(SCRIPT) > 10


def test_the_page_needs_no_network(collection, tmp_path):
    page = report(collection, tmp_path)
    assert page.links
    assert all(link.startswith(("#slide-", "data:image/")) for link in page.links)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|<link", text)


def test_each_slide_has_a_picture_with_its_spots(collection, tmp_path):
    page = report(collection, tmp_path)
    assert len(page.images) == 3
    data = page.images[0].removeprefix("data:image/jpeg;base64,")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
    assert max(picture.shape) == 320
    table = collection.table
    um_per_px = table["image_width_px"][0] * table["patch_um_per_px"][0] / picture.shape[1]
    x, y = (np.array([200.0, 200.0]) / um_per_px).astype(int)  # the first spot, see make_slide
    at_spot = picture[y, x]
    between_spots = picture[y, int(250 / um_per_px)]
    assert at_spot[2] - at_spot[0] > 50 + between_spots[2] - between_spots[0]  # bluer


def test_totals_are_those_of_the_table(collection, tmp_path):
    page = report(collection, tmp_path)
    texts = [text.strip() for text in page.texts if text.strip()]
    assert texts[texts.index("Totals") + 1 :][:12] == [
        "organ",
        "slides",
        "spots",
        *("breast", "1", "100"),
        *("breast & lung", "1", "100"),
        *("unknown", "1", "100"),
    ]
    assert "300 spots" in page.text.replace("  ", " ")


def test_low_values_come_first_and_are_marked(collection, tmp_path):
    table = collection.table.assign(share_on_tissue=[0.9, 0.2, 1.0])
    page = report(Collection(table, collection.folder), tmp_path)
    start = page.texts.index("share_on_tissue: 1 below 0.5")
    after = [entry for entry in page.texts[start:] if entry in ("second", "third", SCRIPT)]
    assert after[:3] == ["second", SCRIPT, "third"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count('<strong class="low">0.2</strong>') == 1


def test_only_the_worst_twenty_rows_are_listed(collection, tmp_path):
    table = pd.concat([collection.table] * 9, ignore_index=True)
    table["name"] = [f"slide {number}" for number in range(27)]
    table["sharpness"] = np.arange(27.0)[::-1]
    page = report(Collection(table, collection.folder), tmp_path)
    start = page.texts.index("sharpness")
    names = []
    for entry in page.texts[start:]:
        if entry == "Copies":
            break
        if entry.startswith("slide "):
            names.append(entry)
    assert names == [f"slide {number}" for number in range(26, 6, -1)]


def test_a_store_that_is_gone_is_named_and_does_not_stop_the_report(collection, tmp_path):
    table = collection.table.copy()
    table.loc[1, "path"] = "gone.zarr"
    page = report(Collection(table, collection.folder), tmp_path)
    assert len(page.images) == 2
    assert "cannot be read: there is no store at" in page.text


def test_failures_and_copies_are_listed(collection, tmp_path):
    failures = [{"name": "GSM1", "path": "GSM1.h5ad", "error": "no scale; pass um_per_px="}]
    pairs = pd.DataFrame(
        [("second", "third", "equal counts", 0.25, "25 equal spots")],
        columns=["first", "second", "kind", "share", "note"],
    )
    page = report(collection, tmp_path, failures=failures, duplicates=pairs)
    for text in ("GSM1", "no scale; pass um_per_px=", "equal counts", "25%", "25 equal spots"):
        assert text in page.texts
