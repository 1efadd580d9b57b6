"""Makes the simulator's own modules (`sim_*`) importable: tests have no packages (importlib
mode)."""

import sys
from pathlib import Path

HERE = str(Path(__file__).resolve().parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)
