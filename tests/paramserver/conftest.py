import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from any_ports import Ports, grpc_ports, local_ports


@pytest.fixture(params=[local_ports, grpc_ports], ids=["local", "grpc"])
def ports(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ports]:
    yield from request.param(tmp_path)
