"""Write simulated traffic to a JSON-lines file that `everspun replay` reads; the truth goes to a
file beside it."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import fields
from heapq import merge
from pathlib import Path

import numpy as np

from everspun.commands.mistakes import refuse
from everspun.replay import History, TrafficConfig, simulate


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="file to write, for example traffic.jsonl")
    for item in fields(TrafficConfig):
        flag = "--" + item.name.replace("_", "-")
        if item.type is bool:
            parser.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=item.default,
                help=item.metadata["help"],
            )
        else:
            parser.add_argument(
                flag,
                type=item.type,
                default=item.default,
                help=f"{item.metadata['help']} ({item.default})",
            )


def run(options: argparse.Namespace) -> int:
    try:
        config = TrafficConfig(
            **{item.name: getattr(options, item.name) for item in fields(TrafficConfig)}
        )
    except ValueError as error:
        return refuse("simulate", error)
    if not options.out.parent.is_dir() or options.out.is_dir():
        return refuse("simulate", f"{options.out}: not a file in a folder that is there")
    traffic = simulate(config)
    history = traffic.history
    with options.out.open("w") as out:
        for line in lines(history):
            out.write(json.dumps(line) + "\n")
    truth = options.out.with_suffix(".truth.npz")
    np.savez_compressed(truth, planted=history.planted, click_probability=traffic.click_probability)
    print(
        f"{len(history):,} impressions and {len(history.click_ts_ms):,} clicks in {options.out}; "
        f"the truth in {truth}"
    )
    return 0


def lines(history: History) -> Iterator[dict[str, object]]:
    """Events as docs/events.md has them, by time, each with `event`: "impression" or "click"."""
    shown = ((int(ts), i, "impression") for i, ts in enumerate(history.ts_ms.tolist()))
    clicked = zip(history.click_ts_ms.tolist(), history.click_impression.tolist(), strict=True)
    for ts_ms, i, event in merge(
        shown, ((int(ts), int(i), "click") for ts, i in clicked), key=lambda one: one[0]
    ):
        yield {
            "event": event,
            "id": history.ids[i],
            "ts_ms": ts_ms,
            "session": history.sessions[i],
            "source": history.sources[i],
            "vendor": history.vendors[i],
            "item": history.items[i],
        }
