import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from any_ports import Ports, grpc_ports, local_ports

GRPC = pytest.param(grpc_ports, marks=pytest.mark.long, id="grpc")


@pytest.fixture(params=[pytest.param(local_ports, id="local"), GRPC])
def ports(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ports]:
    yield from request.param(tmp_path)
