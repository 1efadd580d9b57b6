"""A small shop that publishes to a running system, and asks the replica before it shows something.

    everspun broker                                   # in its own terminal, unless you have a Kafka
    everspun topics create -c examples/shop.toml
    everspun run -c examples/shop.toml                    # in another
    python examples/shop.py -c examples/shop.toml --minutes 5

Each visitor sees a page of items, ordered by what the replica predicts, and clicks by a taste that
the system does not know. Predictions and the model's version travel with the impressions, so that
`everspun status` can tell the loss as served from the loss in training.
"""

import argparse
import json
import os
import random
import time
import urllib.request
from pathlib import Path

from everspun import load
from everspun.launcher import role_files
from stream.hashing import Pseudonymiser
from stream.log import KafkaLog
from stream.producer import EventProducer

ITEMS = [f"item-{i}" for i in range(200)]
USERS = [f"user-{u}" for u in range(500)]
SHOWN = 10
PAGES_PER_SECOND = 5


def predict(run_dir: Path, user: str, items: list[str]) -> dict[str, object]:
    """Ask the first replica how likely each click is."""
    port = role_files(run_dir)["replica-0"]["http_port"]
    rows = [{"source": user, "item": item, "vendor": vendor_of(item)} for item in items]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", json.dumps({"rows": rows}).encode()
    )
    with urllib.request.urlopen(request, timeout=2) as answer:
        return dict(json.loads(answer.read()))


def vendor_of(item: str) -> str:
    return f"vendor-{int(item.split('-')[1]) % 20}"


def would_click(user: str, item: str, dice: random.Random) -> bool:
    taste = random.Random(f"{user[-1]}/{item[-1]}").random()
    return dice.random() < 0.02 + 0.18 * taste**3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", "-c", type=Path, default=Path("examples/shop.toml"))
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args()
    config = load(options.config)
    secret = os.environ.get("EVERSPUN_SECRET", "only an example's secret").encode()
    pseudonym = Pseudonymiser(config.stream.pseudonym_key_number, secret)
    dice = random.Random(1)
    pages = 0
    end = time.monotonic() + 60 * options.minutes
    with EventProducer(KafkaLog(config.stream), config.stream, pseudonym) as producer:
        while time.monotonic() < end:
            user, items = dice.choice(USERS), dice.sample(ITEMS, SHOWN)
            answer = predict(Path(config.run.dir), pseudonym(user), items)
            now_ms, session = time.time_ns() // 1_000_000, f"{user}-{pages // 5_000}"
            ranked = sorted(zip(answer["probabilities"], items, strict=True), reverse=True)
            shown = [
                {
                    "id": f"{session}-{pages}-{place}",
                    "item": item,
                    "vendor": vendor_of(item),
                    "position": place,
                    "prediction": probability,
                    "model_version": answer["model_version"],
                }
                for place, (probability, item) in enumerate(ranked)
            ]
            producer.page_view({"ts_ms": now_ms, "session": session, "source": user}, shown)
            for one in shown:
                if would_click(user, str(one["item"]), dice):
                    click = {
                        "id": one["id"],
                        "ts_ms": now_ms + 1,
                        "session": session,
                        "source": user,
                    }
                    producer.click({**click, "item": one["item"], "vendor": one["vendor"]})
            pages += 1
            time.sleep(1 / PAGES_PER_SECOND)
    print(f"{pages} pages of {SHOWN} impressions published")


if __name__ == "__main__":
    main()
