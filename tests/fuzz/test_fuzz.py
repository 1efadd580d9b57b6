"""A minute's worth of fuzzing, and every input that ever found something (`corpus/`)."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from decoders import DECODERS  # noqa: E402
from fuzz_run import Found, check, corpus, fuzz  # noqa: E402


@pytest.mark.parametrize("name", DECODERS)
def test_no_input_gets_past_its_decoder(name: str):
    assert fuzz(name, inputs=2_000, seconds=60, seed=1) > 0


@pytest.mark.parametrize("name", DECODERS)
def test_the_corpus_is_read(name: str):
    assert corpus(name), "every decoder has examples"
    check(DECODERS[name], corpus(name), None, measure=True)


def test_the_fuzzer_sees_what_a_decoder_raises():
    from dataclasses import replace

    def raising(values: object) -> None:
        raise OverflowError("date value out of range")

    broken = replace(DECODERS["json"], read=raising)
    with pytest.raises(Found, match="OverflowError"):
        check(broken, [b"{}"], None)
