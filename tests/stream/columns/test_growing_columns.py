"""Columns that grow with their entries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.columns import GrowingColumns


@given(st.lists(st.integers(0, 9) | st.sampled_from(("look", "drop")), max_size=80))
def test_columns_are_those_of_all_entries(acts):
    reads = 0

    def read(entries):
        nonlocal reads
        reads += len(entries)
        return {"number": np.array(entries, np.int64), "odd": np.array(entries, np.int64) % 2 == 1}

    columns, plain = GrowingColumns(read), []
    for act in acts:
        if act == "look":
            assert columns.column("number").tolist() == plain
            assert columns.column("odd").tolist() == [one % 2 == 1 for one in plain]
        elif act == "drop":
            columns.keep(~columns.column("odd"))
            plain = [one for one in plain if one % 2 == 0]
        else:
            columns.append(act)
            plain.append(act)
    assert columns.entries == plain
    assert columns.column("number").tolist() == plain
    assert len(columns) == len(plain)
    assert reads <= sum(type(act) is int for act in acts), "each is read once"
