"""What shards and checkpoints claim to have learned, held against the audit's own fold (I3, S7).

Pure. A claim is judged as far as records are still there: its end, and its row hash; where the
first records are gone, the hashes of two claims must differ by exactly the rows between them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from everspun.audit.fold import ChainAudit
from paramserver import Progress
from stream import partition_of
from stream.kernels import HASH_MODULUS


@dataclass(frozen=True)
class ProgressClaim:
    """A claim to have learned up to a progress: a shard's, or a checkpoint's."""

    who: str
    progress: Progress

    @property
    def is_shard(self) -> bool:
        return self.who.startswith("shard")

    def has_read(self, chain: str, offset: int) -> bool:
        """Whether it has learned everything below this record of the chain's partition of
        `examples`."""
        return self.progress.next_record.get(partition_of(chain), -1) >= offset


class Claims:
    """All claims, and what they say together of what is gone. `first`: partition -> first record
    there is."""

    def __init__(
        self,
        standings: Sequence[ProgressClaim],
        chains: Mapping[str, ChainAudit],
        first: Mapping[int, int],
    ) -> None:
        self.standings, self.chains, self.first = standings, chains, first
        self._before = {name: self._hash_before(one) for name, one in chains.items()}
        self.unjudged: dict[str, set[str]] = {}  # chain -> who stands below what is still there

    def _hash_before(self, one: ChainAudit) -> int:
        """The row hash of what was learned before the fold begins: 0, or what most claims say."""
        if one.whole:
            return 0
        said = [
            (at.row_hash - one.hash_at[at.end]) % HASH_MODULUS
            for standing in self.standings
            if (at := standing.progress.chains.get(one.chain)) is not None and at.end in one.hash_at
        ]
        return Counter(said).most_common(1)[0][0] if said else 0

    @property
    def hashes(self) -> str:
        whole = all(one.whole for one in self.chains.values())
        return "hashes equal" if whole else "hashes of what is there equal"

    def faults(self, standing: ProgressClaim, behind_allowed: bool) -> Iterator[str]:
        """What is wrong with one claim, a line a chain."""
        for chain, at in sorted(standing.progress.chains.items()):
            one = self.chains.get(chain)
            if one is None:
                yield f"{chain}: no such chain"
            elif one.end is None:
                yield from self._without_records(standing, chain)
            elif at.end > one.end:
                yield f"{chain}: stands at {at.end}, ahead of the log's {one.end}"
            elif at.end < one.hash_from:
                yield from self._below(standing, one, at.end)
            elif (one.hash_at.get(at.end, -1) + self._before[chain]) % HASH_MODULUS != at.row_hash:
                against = (
                    "the log's" if one.whole else "that of the others by other rows than the log's"
                )
                yield f"{chain}: row hash at {at.end} differs from {against}"
            elif not behind_allowed and at.end < one.end:
                yield f"{chain}: stands at {at.end}, behind the log's {one.end}"

    def _below(self, standing: ProgressClaim, one: ChainAudit, end: int) -> Iterator[str]:
        """It stands below what is still there: that it may, unless it has read what follows."""
        assert one.begin is not None
        if end < one.begin and standing.has_read(one.chain, self.first[partition_of(one.chain)]):
            yield (
                f"{one.chain}: stands at {end} and has read all that is gone, and record "
                f"{one.first_offset} begins at "
                f"{one.begin}: the range between is in no record"
            )
        else:
            self.unjudged.setdefault(one.chain, set()).add(standing.who)

    def _without_records(self, standing: ProgressClaim, chain: str) -> Iterator[str]:
        """No record of the chain is left: who has read all that is gone must say the same."""
        offset = self.first[partition_of(chain)]
        at = standing.progress.chains[chain]
        if not standing.has_read(chain, offset):
            self.unjudged.setdefault(chain, set()).add(standing.who)
            return
        said = Counter(
            (other.end, other.row_hash)
            for one in self.standings
            if one.has_read(chain, offset) and (other := one.progress.chains.get(chain)) is not None
        )
        (end, row_hash), _ = said.most_common(1)[0]
        if at.end != end:
            yield f"{chain}: stands at {at.end}, and others that have read as far at {end}"
        elif at.row_hash != row_hash:
            yield f"{chain}: row hash at {at.end} differs from that of others there"

    def alone(self) -> list[str]:
        """Chains, not whole, of which at most one place is claimed: no difference of hashes to
        check."""
        found = []
        for name, one in self.chains.items():
            ends = {
                at.end
                for s in self.standings
                if (at := s.progress.chains.get(name)) and at.end in one.hash_at
            }
            if not one.whole and one.rows and self.standings and len(ends) < 2:
                found.append(name)
        return sorted(found)


def least_reached(standings: Sequence[ProgressClaim], chain: str, offset: int) -> int:
    """The furthest end that somebody stands at who has read no further than this record: the
    chain was there before."""
    return max(
        (
            at.end
            for standing in standings
            if (at := standing.progress.chains.get(chain)) is not None
            and 0 <= standing.progress.next_record.get(partition_of(chain), -1) <= offset
        ),
        default=0,
    )
