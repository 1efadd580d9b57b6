"""The image for `lr`, made by the steps of its Dockerfile: small enough, without torch, and it runs
as nobody on a root that cannot be written to."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from everspun import __version__

sys.path.insert(0, str(Path(__file__).parent))
from image_steps import Builder, Stage

ROOT = Path(__file__).resolve().parents[2]
#: python:3.12-slim-bookworm, compressed, as its registry says.
BASE_BYTES, IMAGE_BYTES_MAX = 46_000_000, 250_000_000
MEMORY = Path("/dev/shm")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def why_not() -> str:
    if os.geteuid() != 0 or shutil.which("unshare") is None or not MEMORY.is_dir():
        return "steps of an image need root, unshare and /dev/shm"
    probe = "mount -t tmpfs t /mnt && mkdir /mnt/a /mnt/b"
    probe += " && mount -t overlay o -o lowerdir=/mnt/a:/ /mnt/b"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", probe], capture_output=True, text=True, check=False
    )
    return done.stderr


@pytest.fixture(scope="module")
def image() -> Iterator[Stage]:
    if reason := why_not():
        pytest.skip(reason)
    dir = Path(tempfile.mkdtemp(prefix="everspun-image-", dir=MEMORY))
    try:
        context = dir / "context"
        files = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\0")
        for name in filter(None, files):
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, context / name)
        builder = Builder(dir, context)
        builder.build((ROOT / "deploy" / "image" / "Dockerfile").read_text(), {"lr"})
        yield builder.stages["lr"]
    finally:
        shutil.rmtree(dir, ignore_errors=True)


def test_it_is_small_and_has_no_torch(image: Stage):
    layers = [layer for layer in image.layers if layer.name != "base"]
    assert not [path for layer in layers for path in layer.rglob("site-packages/torch")]
    packed = sum(
        int(
            subprocess.run(
                f"tar -C {layer} -c . | gzip -6 | wc -c",
                shell=True,
                capture_output=True,
                check=True,
            ).stdout
        )
        for layer in layers
    )
    print(f"{(packed + BASE_BYTES) / 1e6:.0f} MB compressed, its base among them")
    assert packed + BASE_BYTES <= IMAGE_BYTES_MAX


def test_it_runs_as_nobody_on_a_root_that_cannot_be_written_to(image: Stage):
    assert image.owner == "10001"
    (command,) = image.entrypoint
    assert __version__ in image.run(f"{command} --version")
    assert "10001" in image.run("id -u")
    image.run("! touch /anywhere")
    image.run("touch /var/lib/everspun/anything")


def test_it_reads_parquet_and_finds_a_store(image: Stage):
    """What was left out of its libraries is missed by nobody."""
    image.run(
        "/opt/everspun/bin/python -c '"
        "import botocore.session, pyarrow.compute, pyarrow.dataset, pyarrow.parquet, s3fs; "
        'botocore.session.get_session().create_client("s3", "eu-central-1")'
        "'"
    )


def test_a_role_of_it_starts(image: Stage):
    """A shard: it needs no broker, compiles its kernels into the cache's volume and answers."""
    said = image.run(
        "everspun config --example > everspun.toml; "
        "everspun role shard --index 0 --set run.dir=/var/lib/everspun > log 2>&1 & "
        "for i in $(seq 900); do grep -q serves log && break; sleep 0.1; done; cat log",
        ("/var/cache/everspun",),
    )
    assert "shard 0 serves at" in said
