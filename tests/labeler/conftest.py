"""Makes what tests of the labeler share importable, and what its oracle shares with the
simulator's: tests have no packages (importlib mode)."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
OWN = [str(HERE), *(str(HERE / name) for name in ("labels", "join", "counts", "process"))]
sys.path[:0] = OWN
sys.path.append(str(HERE.parent / "simulation"))
