"""What parsed objects take is bounded without a look at what they hold."""

import json

import pyarrow as pa
import pyarrow.json as pj
from hypothesis import given
from hypothesis import strategies as st

from stream.columns import FeatureColumn
from stream.decoding.schema import expansion, impression_shape, rows_at_most

SHAPE = impression_shape((FeatureColumn("user", "categorical"), FeatureColumn("tags", "list")))
TEXTS = st.text("xé", max_size=20)
FEATURES = st.fixed_dictionaries({}, optional={"user": TEXTS, "tags": st.lists(TEXTS, max_size=5)})
OWN = st.fixed_dictionaries({"id": TEXTS}, optional={"features": FEATURES})
EVENTS = st.fixed_dictionaries(
    {}, optional={"vendor": TEXTS, "features": FEATURES, "impressions": st.lists(OWN, max_size=6)}
)


@given(st.lists(EVENTS, min_size=1, max_size=6))
def test_a_bound_of_rows_and_bytes_is_never_below_what_they_are(events: list[dict[str, object]]):
    text = "\n".join(json.dumps(event) for event in events).encode()
    table = pj.read_json(pa.BufferReader(text), parse_options=SHAPE.parse)
    rows, more_bytes = expansion(table, SHAPE)
    assert rows_at_most(table) >= rows.sum()
    assert rows_at_most(table) * (SHAPE.row_bytes + 2 * table.nbytes) >= more_bytes.sum()
