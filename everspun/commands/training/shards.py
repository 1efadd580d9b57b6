"""Change the number of shards while training goes on: slots move at a cut, and no batch is lost or
doubled. The word is kept by the clock holder until another number is configured. `everspun run`
starts and ends the processes; elsewhere start the new ones first (`everspun role shard --index I`),
and end the old ones once this command has returned."""

import argparse
import time

from everspun.audit import slot_maps
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from everspun.hosts import PROCESSES_MAX
from everspun.status import scrape_all
from paramserver import PortRefused, PortUnreachable
from paramserver.wire import connect

WAIT_S = 120.0
#: The checkpointer says how long the pause was once the checkpoint of the move is judged.
TOLD_S = 15.0
UNTOLD = "no move was seen"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["scale"])
    parser.add_argument("count", type=shared.whole, help="how many shards there are to be")
    parser.add_argument(
        "--wait-s",
        type=shared.finite,
        default=WAIT_S,
        help="seconds to wait until there are; 0 = do not wait",
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    model, count = config.model.name, options.count
    if wrong := fault(config, count):
        return refuse("shards", f"nothing was changed: {wrong}")
    end = time.monotonic() + options.wait_s
    moves, _ = _moves(config)
    moved = bool(_missing(config, count))
    if refusal := _order(config, count, end):
        return refuse("shards", f"nothing was changed, or nobody knows: {refusal}")
    while (missing := _missing(config, count)) and time.monotonic() < end:
        time.sleep(0.1)
    if missing:
        ordered = f"{count} shards are ordered; {missing}. The order holds"
        if not options.wait_s:
            print(ordered)
            return 0
        return refuse("shards", f"{ordered}: see the checkpointer's log for what it waits for", 1)
    told = time.monotonic() + TOLD_S
    while moved and _moves(config)[0] == moves and time.monotonic() < told:
        time.sleep(0.1)
    now, pause = _moves(config)
    phases = ", ".join(f"{phase} {ms:.0f}" for phase, ms in pause.items())
    stopped = f"starts were stopped for {sum(pause.values()):.0f} ms ({phases})"
    print(f"{count} shards of {model}; {stopped if now != moves else UNTOLD}")
    return 0


def fault(config: Config, count: int) -> str:
    """What is wrong with so many shards by itself; "" if there is a place for each of them."""
    if not 1 <= count <= PROCESSES_MAX:
        return f"{count} shards: allowed is 1 to {PROCESSES_MAX}"
    try:
        config.paramserver.address(count - 1, config.run.dir)
    except ValueError as error:  # NoAddress
        return str(error)
    return ""


def _order(config: Config, count: int, until_s: float) -> str:
    """Leave the word with the clock holder, which may be about to come back. Returns why it was
    not taken."""
    shards, clock = connect(config.paramserver, config.run.dir, 0)
    try:
        while True:
            try:
                clock.set_shards(config.model.name, count)
                return ""
            except PortUnreachable as error:
                if time.monotonic() >= until_s:
                    return str(error)
                time.sleep(0.2)
    except (PortRefused, ValueError) as error:
        return str(error)
    finally:
        clock.close()
        shards.close()


def _missing(config: Config, count: int) -> str:
    """What is still to come; empty if every one of so many shards stands at one map of them."""
    maps = slot_maps(config, count)
    if None in maps:
        return f"shard {maps.index(None)} does not answer"
    there = {slot_map.shards for slot_map in maps if slot_map is not None}
    return "" if there == {count} and len(set(maps)) == 1 else f"the map in force has {max(there)}"


def _moves(config: Config) -> tuple[float, dict[str, float]]:
    """(moves since the checkpointer started, phase -> how long that of the last one stopped
    starts, ms)."""
    report = scrape_all(config).get("checkpointer-0")
    if report is None:
        return 0.0, {}
    return report.value("everspun_moves_total"), report.by_label("everspun_move_pause_ms", "phase")
