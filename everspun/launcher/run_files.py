"""Files below `run.dir` by which launcher, roles and commands of one host hear of each other."""

import json
import os
from pathlib import Path
from typing import Any, TypeGuard

from everspun.hosts import PROCESSES_MAX

#: Roles whose processes may be started and stopped while the rest goes on.
SCALABLE = ("learner",)
SCALE_FILE = "scale.json"
#: The configuration that processes start with, as its file was when the run began.
IN_FORCE_FILE = "config-in-force.toml"


def make_folders(run_dir: Path) -> None:
    """Those that a launcher and the processes that it starts write to. Raises OSError."""
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    (run_dir / "roles").mkdir(exist_ok=True)


def write_in_force(run_dir: Path, text: str) -> None:
    """For its owner's eyes. Raises OSError."""
    fresh = run_dir / f"{IN_FORCE_FILE}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text.encode())
    fresh.replace(run_dir / IN_FORCE_FILE)


def order_scale(run_dir: Path, role: str, count: int) -> None:
    """Tell the launcher that runs in this folder how many processes of a role are to run from
    now on."""
    path = run_dir / SCALE_FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(ordered_scale(run_dir) | {role: count}))
    fresh.replace(path)


def ordered_scale(run_dir: Path) -> dict[str, int]:
    """Role -> processes ordered of the launcher that runs in this folder. Nothing where the file
    says nothing that can be meant: what runs goes on as it is."""
    said = _json_object(run_dir / SCALE_FILE)
    return {role: said[role] for role in SCALABLE if may_be_ordered(said.get(role))}


def may_be_ordered(count: object) -> TypeGuard[int]:
    """Whether somebody can mean so many processes of a role."""
    return type(count) is int and 1 <= count <= PROCESSES_MAX


def shards_needed(run_dir: Path) -> tuple[int, bool]:
    """How many shards are to run, as the one that holds the clocks says: those of the map in force,
    and those that an operator wants; and whether others may end (S6). 0 while it does not say."""
    said = _json_object(run_dir / "roles" / "shard-0.json")
    count = said.get("processes", 0)
    if type(count) is not int or count < 0:
        return 0, False
    return count, said.get("settled") is True


def role_files(run_dir: Path) -> dict[str, dict[str, Any]]:
    """What each running role says of itself: `<role>-<index>` -> pid, ports, address; {} for one
    that says nothing that can be read (it is being written, or the disk was full)."""
    try:
        names = sorted((run_dir / "roles").glob("*.json"))
    except OSError:
        return {}
    return {path.stem: _json_object(path) for path in names if path.exists()}


def _json_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; {} where there is none: it is not there, being written, or
    damaged."""
    try:
        said = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
