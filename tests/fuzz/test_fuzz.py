"""A minute's worth of fuzzing, and every input that ever found something (`corpus/`)."""

import sys
from pathlib import Path

import pyarrow as pa
import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from decoders import DECODERS, Decoder  # noqa: E402
from fuzz_run import SHARES, Found, State, batches, check, corpus, fuzz  # noqa: E402


@pytest.mark.parametrize("name", DECODERS)
def test_no_input_gets_past_its_decoder(name: str):
    assert fuzz(name, inputs=4 * 512, seconds=60, seed=1) > 0


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("turn", range(5))
def test_the_corpus_is_read(name: str, turn: int):
    assert corpus(name), "every decoder has examples"
    check(DECODERS[name], corpus(name), turn, measure=True)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, one in DECODERS.items() if one.edges is not list])
def test_what_is_long_is_read(name: str):
    for turn in range(DECODERS[name].readers):
        check(DECODERS[name], DECODERS[name].edges(), turn)


def test_every_decoder_has_its_share():
    assert SHARES.keys() == DECODERS.keys()


def raising(values, turn):
    if any(b"poison" in value for value in values):
        raise OverflowError("date value out of range")
    return len(values)


BROKEN = Decoder(DECODERS["json"].make, raising)


def test_the_one_input_of_a_batch_that_a_decoder_raises_for_is_found():
    values = [b"%d" % i for i in range(500)]
    assert check(BROKEN, values) == 500
    values[317] = b"poison"
    with pytest.raises(Found, match="OverflowError") as found:
        check(BROKEN, values)
    assert found.value.values == [b"poison"]


def test_a_decoder_that_keeps_memory_each_time_is_found():
    kept: list[pa.Buffer] = []

    def keeping(values, turn):
        kept.append(pa.allocate_buffer(2 << 20))
        return len(values)

    def keeping_once(values, turn):
        return len(values) if kept else keeping(values, turn)

    assert check(Decoder(DECODERS["json"].make, keeping_once), [b"1"]) == 1
    with pytest.raises(Found, match="left 2097152"):
        check(Decoder(DECODERS["json"].make, keeping), [b"1"])


def test_a_batch_follows_from_its_number_alone():
    run = batches("json", 5)
    first = [next(run) for _ in range(3)]
    assert next(batches("json", 5, 2)) == first[2]
    assert next(batches("json", 6, 2)) != first[2]


def test_a_run_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def noting(values, turn):
        seen.append(turn)
        return len(values)

    monkeypatch.setitem(DECODERS, "packed", Decoder(DECODERS["packed"].make, noting))
    path, examples = tmp_path / "state.json", len(corpus("packed"))
    assert fuzz("packed", 1_024 + examples, 60, 3, State(path, 3)) == 1_024 + examples
    assert fuzz("packed", 2_048 + examples, 60, 3, State(path, 3)) == 2_048 + examples
    assert seen == [0, 0, 1, 2, 3]
    with pytest.raises(ValueError, match="is of seed 3"):
        State(path, 4)
