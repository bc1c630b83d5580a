from tests.models.published.backbone_page import PAGE, page


def test_the_page_has_the_table_of_the_code():
    assert PAGE.read_text() == page(), "run `python -m tests.models.published.backbone_page`"
