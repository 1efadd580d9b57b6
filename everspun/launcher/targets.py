"""Where Prometheus finds the roles of a run: they listen on free ports, so the list is written
as they come and go."""

import json
from collections.abc import Mapping
from pathlib import Path

from everspun.launcher.run_files import role_files

NAME = "prometheus-targets.json"


def write_targets(run_dir: Path, elsewhere: Mapping[str, str] | None = None) -> bool:
    """Write `<run_dir>/prometheus-targets.json` for Prometheus's file discovery, whole.
    `elsewhere`: name of a process -> host:port, of processes that this host does not run. False if
    nothing changed."""
    targets = dict(elsewhere or {})
    for name, known in role_files(run_dir).items():
        if isinstance(known.get("metrics_port"), int):
            host = known.get("metrics_host", "127.0.0.1")
            targets[name] = f"[{host}]" if ":" in host else host
            targets[name] += f":{known['metrics_port']}"
    found = [
        {"targets": [at], "labels": {"process": name, "role": name.rpartition("-")[0]}}
        for name, at in sorted(targets.items())
    ]
    text = json.dumps(found, indent=1)
    path = run_dir / NAME
    if path.exists() and path.read_text() == text:
        return False
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    draft.rename(path)
    return True
