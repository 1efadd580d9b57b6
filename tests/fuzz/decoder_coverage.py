"""How much of the decoders the fuzzer alone runs: `python tests/fuzz/decoder_coverage.py`.

Lines and branches together, of the files below, by a run of the fuzzer on compiled nothing: kernels
are Python here, so that their lines count. The last line is the figure; before it stand the lines
and branches that no input reached. Options are those of `fuzz_run`.
"""

import os
import sys
from pathlib import Path

os.environ["NUMBA_DISABLE_JIT"] = "1"

import coverage

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: What counts as a decoder: a file that reads bytes which somebody else wrote. Of the folders not
#: the faces, and not what works on rows that were read: the clock of arrivals, shares of missing
#: features, catalogues that are held, hashes and sizes of rows, buckets of counts.
DECODERS = (
    "stream/decoding/*.py",
    "stream/decoding/catalogues/rows.py",
    "stream/columns/column_kinds.py",
    "stream/columns/value_faults.py",
    "stream/columns/arrow_messages.py",
    "stream/columns/picture_files.py",
    "stream/columns/pictures.py",
    "stream/columns/values.py",
    "stream/internal_topics/*.py",
    "stream/log/broken_batches.py",
    "stream/log/record_batches.py",
    "stream/log/record_columns.py",
    "stream/log/unpacking.py",
    "stream/registry/avro_nodes.py",
    "stream/registry/avro_reader.py",
    "stream/registry/protobuf_reader.py",
    "stream/registry/wire_format.py",
    "checkpointer/json_rows/*.py",
    "checkpointer/serving/arrow_request.py",
    "checkpointer/serving/open_inference.py",
    "checkpointer/serving/request.py",
    "checkpointer/serving/tensorflow_serving.py",
    "checkpointer.serving.request_decoder/*.py",
)
OTHERS = (
    "*/__init__.py",
    "stream/decoding/arrival.py",
    "stream/decoding/missing_shares.py",
    "stream/internal_topics/counts_folding.py",
    "stream/internal_topics/passed_over.py",
    "stream/internal_topics/row_hash.py",
    "stream/internal_topics/row_sizes.py",
)
INPUTS = 20_000


def main() -> int:
    os.chdir(ROOT)
    for place in (HERE, ROOT):
        sys.path.insert(0, str(place))
    measured = coverage.Coverage(None, branch=True, include=DECODERS, omit=OTHERS)
    measured.start()
    import fuzz_run
    import numpy as np

    np.seterr(over="ignore", invalid="ignore")  # what kernels mean to wrap
    fuzz_run.CPU_S_MAX = 60.0  # of kernels in Python, each line noted
    failed = fuzz_run.main(sys.argv[1:] or ["--inputs", str(INPUTS)])
    measured.stop()
    percent = measured.report(show_missing=True, skip_covered=True, file=sys.stdout)
    print(f"decoders: {percent:.1f}% of lines and branches reached by the fuzzer alone")
    return failed


if __name__ == "__main__":
    sys.exit(main())
