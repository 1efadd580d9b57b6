"""Makes what tests of the labeler share importable: tests have no packages (importlib mode)."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "labels"), str(HERE / "join"), str(HERE / "counts")]
