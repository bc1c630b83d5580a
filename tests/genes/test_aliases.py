from stp.genes.vocabulary_file import genes_by_name, merge_aliases, names_by_gene


def test_grouping_by_gene_and_back_keeps_the_aliases():
    aliases = {"X": ("G1", "G3"), "A": ("G1",)}
    names = names_by_gene(["G1", "G2", "G3"], aliases)
    assert names == [["A", "X"], [], ["X"]]
    assert genes_by_name(["G1", "G2", "G3"], names) == aliases


def test_other_aliases_are_added_for_new_genes_only():
    merged = merge_aliases(
        {"X": ("G1",)}, {"X": ("G1", "G2"), "Y": ("G1",), "Z": ("G3",)}, ["G2", "G3"]
    )
    assert merged == {"X": ("G1", "G2"), "Z": ("G3",)}
