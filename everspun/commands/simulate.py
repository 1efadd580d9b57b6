"""Write simulated traffic to a JSON-lines file that `everspun replay` reads; the truth goes to a file beside it."""

import argparse
import json
from dataclasses import fields
from pathlib import Path

import numpy as np

from everspun.traffic import TrafficConfig, simulate


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="file to write, for example traffic.jsonl")
    for item in fields(TrafficConfig):
        flag = "--" + item.name.replace("_", "-")
        if item.type is bool:
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=item.default, help=item.metadata["help"]
            )
        else:
            parser.add_argument(
                flag, type=item.type, default=item.default, help=f"{item.metadata['help']} ({item.default})"
            )


def run(options: argparse.Namespace) -> int:
    traffic = simulate(TrafficConfig(**{item.name: getattr(options, item.name) for item in fields(TrafficConfig)}))
    history = traffic.history
    with options.out.open("w") as out:
        for i in range(len(history)):
            event = {
                "id": history.ids[i],
                "ts_ms": int(history.ts_ms[i]),
                "session": history.sessions[i],
                "source": history.sources[i],
                "vendor": history.vendors[i],
                "item": history.items[i],
            }
            out.write(json.dumps(event) + "\n")
        for i, ts in zip(history.click_impression.tolist(), history.click_ts_ms.tolist(), strict=True):
            out.write(json.dumps({"click": history.ids[i], "ts_ms": ts}) + "\n")
    truth = options.out.with_suffix(".truth.npz")
    np.savez_compressed(truth, planted=history.planted, click_probability=traffic.click_probability)
    print(
        f"{len(history):,} impressions and {len(history.click_ts_ms):,} clicks in {options.out}; the truth in {truth}"
    )
    return 0
