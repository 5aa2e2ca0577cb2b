"""The numbers of checkpoints: those in their names, or the order given; never a mixture that looks like epochs."""

from pathlib import Path

import pytest

from fisherkit.studies.numbering import number_in, numbered, without_numbers


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def test_names_with_numbers_are_ordered_by_them():
    assert numbered(paths("k/epoch_20.pt", "k/epoch_3.pt")) == [(3, Path("k/epoch_3.pt")), (20, Path("k/epoch_20.pt"))]
    own = Path(f"ckpt-1200-{'0a' * 8}.pt")
    assert number_in(own) == 1200
    assert numbered([own]) == [(1200, own)]


def test_names_without_numbers_keep_the_order_given():
    assert numbered(paths("z.pt", "a.pt")) == [(0, Path("z.pt")), (1, Path("a.pt"))]
    assert without_numbers(paths("z.pt", "a.pt"))
    assert not without_numbers(paths("z.pt", "a1.pt"))


def test_a_name_without_a_number_among_others_is_refused():
    with pytest.raises(ValueError, match=r"got 'k/best.pt' without one, and 2 with. Give it one.* or leave it out"):
        numbered(paths("k/epoch_10.pt", "k/epoch_20.pt", "k/best.pt"))


def test_two_with_the_same_number_are_refused():
    with pytest.raises(ValueError, match=r"different numbers.*got 10 in 'a/epoch_10.pt' and 'b/epoch_10.pt'. Rename"):
        numbered(paths("b/epoch_10.pt", "c/epoch_3.pt", "a/epoch_10.pt"))


@pytest.mark.parametrize("name", ["epoch_10.pt", "best.pt"])
def test_the_same_file_twice_is_refused(name: str):
    with pytest.raises(ValueError, match=rf"different files; got 'k/{name}' and 'k/../k/{name}', which are the same"):
        numbered(paths(f"k/{name}", f"k/../k/{name}"))
    path = Path(f"k/{name}")
    with pytest.raises(ValueError, match=r"which are the same. Leave one out"):
        numbered([path, path])
