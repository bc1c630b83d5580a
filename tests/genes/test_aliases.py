from stp.genes.vocabulary_file import genes_by_name, names_by_gene, with_aliases


def test_there_and_back():
    aliases = {"X": ("G1", "G3"), "A": ("G1",)}
    names = names_by_gene(["G1", "G2", "G3"], aliases)
    assert names == [["A", "X"], [], ["X"]]
    assert genes_by_name(["G1", "G2", "G3"], names) == aliases


def test_only_new_genes_are_added():
    joined = with_aliases(
        {"X": ("G1",)}, {"X": ("G1", "G2"), "Y": ("G1",), "Z": ("G3",)}, ["G2", "G3"]
    )
    assert joined == {"X": ("G1", "G2"), "Z": ("G3",)}
