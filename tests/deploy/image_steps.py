"""The steps of a Dockerfile without a builder: each stage is a layer over this machine's root,
which stands for the base image with its Python, and what it runs is run there by chroot. Needs
root, and a kernel with overlayfs."""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

#: What `PATH` of the base image must find is found here.
BASE_PATH = (
    f"{Path(os.path.realpath(shutil.which('python3') or 'python3')).parent}:{os.environ['PATH']}"
)
#: A step takes no longer, s.
LONGEST_S = 600
ENTER = r"""
set -e
mount -t overlay overlay -o "$OPTIONS" "$ROOT"
mount --bind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
for place in $VOLUMES; do mount -t tmpfs -o "uid=$OWNER,gid=$OWNER" tmpfs "$ROOT$place"; done
exec chroot --userspec="$OWNER:$OWNER" "$ROOT" \
    /usr/bin/env -i $GIVEN /bin/sh -c "cd $WORKDIR || exit 1; $STEP"
"""


@dataclass(frozen=True)
class Stage:
    """`layers`: the highest first; `own`: the one that this stage writes to."""

    own: Path
    layers: tuple[Path, ...]
    given: dict[str, str]
    owner: str = "0"
    workdir: str = "/"
    volumes: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def run(self, step: str, places: tuple[str, ...] = (), *, writable: bool = False) -> str:
        """In a container: its root cannot be written to, its volumes and further `places` can.
        Answers what it printed; raises AssertionError with that when it fails."""
        lower = ":".join(map(str, (*self.layers, Path("/"))))
        root, work = self.own.parent / "root", self.own.parent / f"{self.own.name}.work"
        for folder in (root, work):
            folder.mkdir(exist_ok=True)
        options = f"lowerdir={lower}"
        if writable:
            lower = ":".join(map(str, (*self.layers[1:], Path("/"))))
            options = f"lowerdir={lower},upperdir={self.own},workdir={work}"
        entered = {
            "OPTIONS": options,
            "ROOT": str(root),
            "OWNER": self.owner,
            "VOLUMES": "" if writable else " ".join((*self.volumes, *places)),
            "GIVEN": " ".join(f"{name}={value}" for name, value in self.given.items()),
            "WORKDIR": self.workdir,
            "STEP": step,
        }
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER],
            env={"PATH": os.environ["PATH"], **entered},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{step}\n{said[-3_000:]}"
        return said


@dataclass
class Builder:
    """`with` its `dir` on a file system of its own (tmpfs), `context`: what may be copied."""

    dir: Path
    context: Path
    stages: dict[str, Stage] = field(default_factory=dict)

    def build(self, dockerfile: str, targets: set[str]) -> None:
        """Every stage that these are made of."""
        text = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
        blocks = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
        found = {block.splitlines()[0].split()[-1]: block for block in blocks}
        needed, open_ones = set(targets), list(targets)
        while open_ones:
            block = found[open_ones.pop()]
            of = {block.split()[0], *re.findall(r"--from=(\S+)", block)} & set(found)
            open_ones += of - needed
            needed |= of
        for name, block in found.items():
            if name in needed:
                self._stage(name, block)

    def _stage(self, name: str, block: str) -> None:
        base = self.stages.get(block.split()[0]) or self._base()
        own = self.dir / name
        own.mkdir()
        stage = replace(base, own=own, layers=(own, *base.layers), given=dict(base.given))
        for line in filter(None, map(str.strip, block.splitlines()[1:])):
            stage = self._step(stage, *line.split(maxsplit=1))
        self.stages[name] = stage

    def _base(self) -> Stage:
        """The interpreter of this machine may stand where only its owner comes in."""
        base = self.dir / "base"
        for place in (Path(os.path.realpath(BASE_PATH.partition(":")[0])).parents)[:-1]:
            (base / place.relative_to("/")).mkdir(parents=True, exist_ok=True)
        for place in base.rglob("*"):
            place.chmod(0o755)
        return Stage(base, (base,), {"PATH": BASE_PATH, "HOME": "/root"})

    def _step(self, stage: Stage, word: str, rest: str) -> Stage:
        if word in ("ENV", "ARG"):
            said = dict(one.partition("=")[::2] for one in shlex.split(rest))
            path = {"PATH": f"{said['PATH'].partition(':')[0]}:{stage.given['PATH']}"}
            return replace(stage, given=stage.given | said | (path if "PATH" in said else {}))
        if word == "RUN":
            stage.run(rest, writable=True)
        elif word == "COPY":
            self._copy(stage, rest.split())
        elif word == "WORKDIR":
            (stage.own / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            return replace(stage, workdir=rest)
        elif word == "USER":
            return replace(stage, owner=rest.partition(":")[0])
        elif word == "VOLUME":
            return replace(stage, volumes=tuple(shlex.split(rest.strip("[]").replace(",", " "))))
        elif word in ("ENTRYPOINT", "CMD"):
            words = tuple(shlex.split(rest.strip("[]").replace(",", " ")))
            key = "entrypoint" if word == "ENTRYPOINT" else "command"
            return replace(stage, **{key: words})
        else:
            assert word == "STOPSIGNAL", f"what does {word} do?"
        return stage

    def _copy(self, stage: Stage, words: list[str]) -> None:
        source = self.context
        if words[0].startswith("--from="):
            source = self.stages[words.pop(0).partition("=")[2]].own
        *names, target = words
        to = stage.own / (stage.workdir.lstrip("/") if not target.startswith("/") else "")
        to = to / target.lstrip("/")
        for name in names:
            here = source / name.lstrip("/")
            goal = to / here.name if here.is_file() else to
            goal.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "--no-target-directory", here, goal], check=True)
