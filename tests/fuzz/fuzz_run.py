"""Fuzzes every decoder: `python tests/fuzz/fuzz_run.py --inputs 10000000 --state FILE`, or
`--decoder arrow --seed 7 --inputs 100000`.

Inputs come in batches of BATCH, as polls bring them: made by their structure, or made ones and the
corpus changed byte by byte. A batch follows from the decoder, the seed and its number alone, so a
run that was ended goes on where `--state` says, and any batch can be made again (`--batch N`). It
fails on anything that a decoder raises, on more CPU time or memory than a record may take, and on a
crash. A batch that fails is halved until one input is left, which is written to `--keep` and makes
a test of its own in `corpus/`.
"""

import argparse
import gc
import hashlib
import json
import logging
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Iterator
from itertools import count
from pathlib import Path

HERE = Path(__file__).resolve().parent
for place in (HERE, HERE.parents[1]):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

import plain_kernels  # noqa: E402, F401  before all that compiles
from decoders import DECODERS, Decoder, allocated  # noqa: E402
from mutations import mutated  # noqa: E402

CORPUS = HERE / "corpus"
#: Values of one call. A decoder gets so many calls in a short run, too: by its number a batch
#: chooses its readers.
BATCH, BATCHES_MIN = 512, 8
#: So many batches draw from one pool of inputs; in each, some of the pool's are replaced.
EPOCH, POOL, REPLACED = 64, 256, 8
MADE_SHARE = 0.2
#: Of one batch, beyond what each of its inputs may take.
CPU_S_MAX, CPU_S_EACH = 3.0, 0.01
PYTHON_BYTES_MAX = 1 << 28
ARROW_BYTES_LEFT_MAX = 1 << 20
MEASURED_EACH = 32
#: What each decoder is given of all inputs: those that cost less are given more.
SHARES = {
    "json": 200,
    "arrow": 160,
    "batches": 30,
    "packed": 580,
    "internal": 1_000,
    "producer": 30,
    "registered": 60,
    "requests": 60,
}


class Found(Exception):
    """Inputs that a decoder does not take as it should."""

    def __init__(self, said: str, values: list[bytes]):
        super().__init__(said)
        self.values = values


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def check(decoder: Decoder, values: list[bytes], turn: int = 0, measure: bool = False) -> int:
    """One call: how many inputs were read. Raises Found, with the fewest of the inputs that fail
    alike. What took long is read again: the first call may have compiled. So is what left memory:
    a thread that an earlier test began may have allocated it, and a leak is there each time."""
    before = allocated()
    done, cpu_s, taken, error = _read(decoder, values, turn, measure)
    cpu_s_max = CPU_S_MAX + CPU_S_EACH * len(values)
    if error is None and cpu_s > cpu_s_max:
        done, cpu_s, taken, error = _read(decoder, values, turn, measure)
    if error is not None:
        raise Found(f"{type(error).__name__}: {error}", _fewest(decoder, values, turn)) from error
    if cpu_s > cpu_s_max:
        raise Found(f"took {cpu_s:.1f} s of CPU", values)
    left = allocated() - before
    if left > ARROW_BYTES_LEFT_MAX:
        gc.collect()
        before = allocated()
        _read(decoder, values, turn, measure)
        left = allocated() - before
    if taken > PYTHON_BYTES_MAX or left > ARROW_BYTES_LEFT_MAX:
        raise Found(f"took {taken} bytes, left {left}", values)
    return done


def _read(
    decoder: Decoder, values: list[bytes], turn: int, measure: bool
) -> tuple[int, float, int, Exception | None]:
    """Inputs read, CPU seconds of this thread, the bytes that Python took at most if they are
    measured, and what was raised."""
    began, done, raised = time.thread_time(), 0, None
    if measure:
        tracemalloc.start()
    try:
        done = decoder.read(values, turn)
    except Exception as error:
        raised = error
    finally:
        taken = tracemalloc.get_traced_memory()[1] if measure else 0
        tracemalloc.stop()
    return done, time.thread_time() - began, taken, raised


def _fewest(decoder: Decoder, values: list[bytes], turn: int) -> list[bytes]:
    """A part of a failing batch that still fails, halved until no half of it does."""
    while len(values) > 1:
        middle = len(values) // 2
        halves = values[:middle], values[middle:]
        failing = [half for half in halves if _read(decoder, half, turn, False)[3] is not None]
        if not failing:
            break
        values = failing[0]
    return values


def batches(name: str, seed: int, first: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """The batches of a decoder from number `first` on, each with its number."""
    decoder = DECODERS[name]
    for epoch in count(first // EPOCH):
        rng = random.Random(f"{name} {seed} {epoch}")
        pool = [*corpus(name), *(decoder.make(rng) for _ in range(POOL // 2))]
        for number in range(epoch * EPOCH, (epoch + 1) * EPOCH):
            values = [
                decoder.make(rng) if rng.random() < MADE_SHARE else _changed(pool, rng)
                for _ in range(BATCH)
            ]
            for value in rng.sample(values, REPLACED):
                if len(pool) < POOL:
                    pool.append(value)
                else:
                    pool[rng.randrange(POOL)] = value
            if number >= first:
                yield number, values


def _changed(pool: list[bytes], rng: random.Random) -> bytes:
    return mutated(rng.choice(pool), pool, rng)


def fuzz(
    name: str,
    inputs: int,
    seconds: float,
    seed: int,
    state: "State | None" = None,
    batches_min: int = 0,
) -> int:
    """How many inputs were read, with those of `state`. Raises Found."""
    state = state or State(None, seed)
    first, done = state.of(name)
    until = time.monotonic() + seconds
    if not first:
        done += check(DECODERS[name], corpus(name))
        edges = DECODERS[name].edges()
        for turn in range(DECODERS[name].readers if batches_min and edges else 0):
            done += check(DECODERS[name], edges, turn)
    for number, values in batches(name, seed, first):
        if (done >= inputs and number >= batches_min) or time.monotonic() >= until:
            break
        done += check(DECODERS[name], values, number, measure=number % MEASURED_EACH == 0)
        state.write(name, number + 1, done)
    return done


class State:
    """How far a run is: of each decoder the next batch, and inputs read."""

    def __init__(self, path: Path | None, seed: int):
        self._path, self._seed = path, seed
        self._said: dict[str, list[int]] = {}
        if path is not None and path.exists():
            held = json.loads(path.read_text())
            if held["seed"] != seed:
                raise ValueError(f"{path} is of seed {held['seed']}: run with --seed, or remove it")
            self._said = held["decoders"]

    def of(self, name: str) -> tuple[int, int]:
        batch, inputs = self._said.get(name, (0, 0))
        return batch, inputs

    def write(self, name: str, batch: int, inputs: int) -> None:
        self._said[name] = [batch, inputs]
        if self._path is not None:
            written = self._path.with_suffix(".new")
            written.write_text(json.dumps({"seed": self._seed, "decoders": self._said}))
            os.replace(written, self._path)


def _keep(found: Found, name: str, folder: Path | None) -> str:
    if folder is None:
        return f"{len(found.values)} inputs; --keep FOLDER writes them"
    for value in found.values:
        path = folder / name / hashlib.sha256(value).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
    return f"{len(found.values)} inputs are in {folder / name}"


def _one(name: str, seed: int, number: int) -> int:
    """A batch of its own, again."""
    _, values = next(batches(name, seed, number))
    return check(DECODERS[name], values, number)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="of all decoders together")
    parser.add_argument("--seconds", type=float, default=sys.maxsize, help="of each decoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decoder", choices=sorted(DECODERS), action="append", help="all if none")
    parser.add_argument("--batch", type=int, help="this batch alone, of one decoder")
    parser.add_argument("--state", type=Path, help="file that says where to go on")
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # of features that are not declared
    names = options.decoder or list(DECODERS)
    state, shares = State(options.state, options.seed), sum(SHARES[name] for name in names)
    total = failed = 0
    for name in names:
        try:
            began = time.process_time()
            if options.batch is not None:
                done = _one(name, options.seed, options.batch)
            else:
                inputs = -(-options.inputs * SHARES[name] // shares)
                limits = inputs, options.seconds, options.seed
                done = fuzz(name, *limits, state, BATCHES_MIN)
            cpu_s = time.process_time() - began
            print(f"{name:12} {done:>12,} inputs, 0 failed, {cpu_s:.0f} s of CPU", flush=True)
            total += done
        except Found as found:
            failed += 1
            said = f"batch {state.of(name)[0]}: {found}; {_keep(found, name, options.keep)}"
            print(f"{name:12} FAILED: {said}", flush=True)
    print(f"{'all':12} {total:>12,} inputs, {failed} decoders failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
