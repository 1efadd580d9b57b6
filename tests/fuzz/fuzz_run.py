"""Fuzzes every decoder: `python tests/fuzz/fuzz_run.py --inputs 1000000`, `--seconds 60`,
`--decoder arrow --seed 7`.

Inputs are made by their structure or are others changed byte by byte, and half of them begin from
the corpus. It fails on anything that a decoder raises, on more CPU time or memory than a record may
take, and on a crash; the inputs of that call then lie in `--keep` and make a test of their own in
`corpus/`.
"""

import argparse
import random
import sys
import time
import tracemalloc
from pathlib import Path

HERE = Path(__file__).resolve().parent
for place in (HERE, HERE.parents[1]):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from decoders import DECODERS, Decoder, allocated  # noqa: E402
from mutations import mutated  # noqa: E402

CORPUS = HERE / "corpus"
AT_ONCE = 32  # inputs of one call
SEEDS_KEPT = 256
#: Of one call; a good one of its size takes a few ms.
CPU_S_MAX = 3.0
PYTHON_BYTES_MAX = 1 << 28
ARROW_BYTES_LEFT_MAX = 1 << 20


class Found(Exception):
    """An input that a decoder does not take as it should."""


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def check(decoder: Decoder, values: list[bytes], keep: Path | None, measure: bool = False) -> None:
    """One call, and what it took. Raises Found. What took long is read again: the first may have
    compiled."""
    if keep is not None:  # before the call: a crash leaves nothing else
        for i, value in enumerate(values):
            (keep / f"{i:02}").write_bytes(value)
    before = allocated()
    cpu_s, taken = _read(decoder, values, measure)
    if cpu_s > CPU_S_MAX:
        cpu_s, taken = _read(decoder, values, measure)
    if cpu_s > CPU_S_MAX:
        raise Found(f"took {cpu_s:.1f} s of CPU")
    if taken > PYTHON_BYTES_MAX or allocated() - before > ARROW_BYTES_LEFT_MAX:
        raise Found(f"took {taken} bytes, left {allocated() - before}")


def _read(decoder: Decoder, values: list[bytes], measure: bool) -> tuple[float, int]:
    """CPU seconds of this thread, and, if they are measured, the bytes that Python took at most."""
    began = time.thread_time()
    if measure:
        tracemalloc.start()
    try:
        decoder.read(values)
    except decoder.raises:
        pass
    except Exception as error:
        raise Found(f"{type(error).__name__}: {error}") from error
    finally:
        taken = tracemalloc.get_traced_memory()[1] if measure else 0
        tracemalloc.stop()
    return time.thread_time() - began, taken


def fuzz(name: str, inputs: int, seconds: float, seed: int, keep: Path | None = None) -> int:
    """How many inputs were read. Raises Found."""
    decoder, rng = DECODERS[name], random.Random(f"{name} {seed}")
    seeds = corpus(name) + [decoder.make(rng) for _ in range(16)]
    for value in seeds:
        check(decoder, [value], keep)
    until, done, calls = time.monotonic() + seconds, 0, 0
    while done < inputs and time.monotonic() < until:
        values = [
            decoder.make(rng) if rng.random() < 0.3 else mutated(rng.choice(seeds), seeds, rng)
            for _ in range(AT_ONCE)
        ]
        check(decoder, values, keep, measure=calls % 50 == 0)
        done, calls = done + len(values), calls + 1
        if len(seeds) < SEEDS_KEPT:
            seeds.append(rng.choice(values))
        elif rng.random() < 0.1:
            seeds[rng.randrange(len(seeds))] = rng.choice(values)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="of each decoder")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each decoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--decoder", choices=sorted(DECODERS), action="append", help="this one; all by default"
    )
    parser.add_argument("--keep", type=Path, help="folder for the inputs of the last call")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    total = failed = 0
    for name in options.decoder or DECODERS:
        try:
            done = fuzz(name, options.inputs, options.seconds, options.seed, options.keep)
            print(f"{name:12} {done:>12,} inputs, 0 failed", flush=True)
            total += done
        except Found as found:
            failed += 1
            print(
                f"{name:12} FAILED: {found} (seed {options.seed}; its inputs: "
                f"{options.keep or 'use --keep'})",
                flush=True,
            )
    print(f"{'all':12} {total:>12,} inputs, {failed} decoders failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
