import dataclasses
import json

from stp.models import ModelCard, Stamp


def test_a_card_is_written_read_and_shown(stamp, tmp_path):
    stamp.card = ModelCard(
        ("align: 9 spots of a.zarr",),
        {"recall@5": 0.25},
        license="CC-BY-4.0",
        intended_use="Research.",
        version="0.0.7",
    )
    stamp.save_pretrained(tmp_path / "mine")
    assert Stamp.from_pretrained(tmp_path / "mine").card == stamp.card
    page = (tmp_path / "mine" / "README.md").read_text()
    assert page.startswith("---\nlibrary_name: stp-spatial\nlicense: cc-by-4.0\n")
    for line in (
        "# mine",
        "- align: 9 spots of a.zarr",
        "- recall@5: 0.25",
        "Research.",
        "stp 0.0.7",
        stamp.digest,
    ):
        assert line in page


def test_empty_fields_are_shown_as_not_stated(stamp, tmp_path):
    stamp.save_pretrained(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page.count("Not stated.") == 2 and "not stated" in page and "Not for diagnosis" in page
    assert json.loads((tmp_path / "config.json").read_text())["card"]["license"] == "not stated"


def test_untrained_genes_are_listed():
    card = dataclasses.replace(ModelCard(), untrained_genes=tuple(f"G{i}" for i in range(12)))
    assert "12 genes were added and not trained: G0, G1" in card.page("Stamp", "x", "0")


def test_a_license_that_the_hub_does_not_know_is_other_in_the_header():
    page = ModelCard(license="x\ny: z", terms=("UNI: CC-BY-NC-ND-4.0",)).page("Stamp", "x", "0")
    header, text = page.removeprefix("---\n").split("\n---\n")
    assert "license: other" in header.splitlines() and "y: z" not in header
    assert text.endswith("## License\n\nx\ny: z\n- UNI: CC-BY-NC-ND-4.0\n")


def test_terms_that_forbid_derivatives_are_found():
    forbidding = ("UNI: CC-BY-NC-ND-4.0", "cc-by-nd-4.0", "No derivatives.", "forbids derivatives")
    allowing = ("Apache-2.0", "CC-BY-NC-SA-4.0", "for derivatives, ask", "kind and weekend")
    assert ModelCard(terms=forbidding + allowing).no_derivatives() == list(forbidding)
