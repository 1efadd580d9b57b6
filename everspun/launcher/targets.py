"""Where Prometheus finds the roles of a run: they listen on free ports, so the list is written
as they come and go."""

import json
from pathlib import Path

from everspun.launcher.launcher import role_files

NAME = "prometheus-targets.json"


def write_targets(run_dir: Path) -> bool:
    """Write `<run_dir>/prometheus-targets.json` for Prometheus's file discovery, whole. False if
    nothing changed."""
    found = []
    for name, known in sorted(role_files(run_dir).items()):
        labels = {"process": name, "role": name.rpartition("-")[0]}
        if isinstance(known.get("metrics_port"), int):
            found.append({"targets": [f"127.0.0.1:{known['metrics_port']}"], "labels": labels})
    text = json.dumps(found, indent=1)
    path = run_dir / NAME
    if path.exists() and path.read_text() == text:
        return False
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    draft.rename(path)
    return True
