"""What operators order, written down and read again."""

from pathlib import Path

import pytest

from paramserver.clocks.operator_settings import OperatorSettings, decode_settings, encode_settings
from paramserver.server import StateDir


def test_orders_survive_the_process_that_was_given_them(tmp_path: Path):
    said = {"a": OperatorSettings(paused=True), "b": OperatorSettings(staleness=0, configured=2)}
    state = StateDir(str(tmp_path), 0)
    assert state.settings() == {}
    state.keep_settings(said)
    state.close()
    again = StateDir(str(tmp_path), 0)
    assert again.settings() == said
    again.close()


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"a": 1}', b'{"a": {"paused": 1}}', b'{"a": {"staleness": -2}}']
)
def test_what_is_no_order_is_refused(data: bytes):
    with pytest.raises(ValueError, match="orders of an operator"):
        decode_settings(data)


def test_orders_written_before_there_were_revisions_are_read():
    kept = decode_settings(b'{"a": {"paused": true}}')
    assert (kept.revision, kept.models) == (1, {"a": OperatorSettings(paused=True)})


def test_a_bound_is_void_once_another_is_configured():
    said = decode_settings(
        encode_settings({"m": OperatorSettings(staleness=0, configured=2)})
    ).models["m"]
    assert (said.bound(2), said.bound(3), OperatorSettings().bound(3)) == (0, 3, 3)


def test_a_damaged_file_is_named(tmp_path: Path):
    state = StateDir(str(tmp_path), 0)
    (state.path / "orders.json").write_text("{")
    with pytest.raises(ValueError, match=r"orders\.json"):
        state.settings()
    state.close()
