"""Which names a new defect class may have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.class_names import class_name_faults, require_class_names
from inspection.errors import UsageError

NAMES = st.lists(
    st.one_of(st.text(max_size=6), st.sampled_from(["open", "Open", "ＯＰＥＮ", "good ", "GOOD"])), max_size=8
)


@given(NAMES)
def test_accepted_names_are_told_apart_by_a_person(names: list[str]) -> None:
    """Of the names that are taken, no two differ by upper and lower case alone, none means no defect, all are printable."""
    faults = class_name_faults(names)
    taken = set(names) - faults.keys()
    assert len({name.casefold() for name in taken}) == len(taken)
    assert "good" not in {name.casefold() for name in taken}
    assert all(name.isprintable() and name.strip() == name != "" for name in taken)


@pytest.mark.parametrize("name", ["pin-hole", "划痕", "<script>alert(1)</script>", "goodness", "no good", "x" * 200])
def test_plain_and_hostile_names_are_text(name: str) -> None:
    """Any printable text is a name, in any language, with markup or not: pages show it as text."""
    require_class_names([name], ["open"])


def test_refusal_names_the_class_that_is_there() -> None:
    """Who types a class once more is told how it is written."""
    with pytest.raises(UsageError, match="'Open' and 'open' differ only"):
        require_class_names(["Open"], ["short", "open"])
