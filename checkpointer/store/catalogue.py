"""The checkpoints of one model in a store: what stands where, in which order it is written, and
what counts.

    <model>/begin.json                           where the model began, before anything else (S5)
    <model>/00000012-19a7f3/part-0.safetensors   written by the shards
    <model>/00000012-19a7f3/manifest.json        written last: now the checkpoint is complete (X2)
    <model>/00000012-19a7f3/gates.json           what the gates found, and why
    <model>/published.json                       the newest one, for a replica without Kafka
    <model>/hold.json                            the operator's hold on serving (X4)
    <model>/training.json                        the operator's rollback of training (X4)
    <model>/successor.json                       the model that answers in this one's place
    <model>/pins.json                            checkpoints that an operator wants kept
    <model>/hold.json.copy, ...                  of each of these four, written just before it

Every file is written whole or not at all, by one writer, and (but for the last five) once. So
whoever reads at any moment finds the old state or the new one.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from checkpointer.retention import Keep, Kept, expired
from checkpointer.store.announcement import Hold, Ref
from checkpointer.store.delta_chain import ServingStep, serving_steps, steps
from checkpointer.store.files import Files
from checkpointer.store.gate_findings import Gates, decode_gates
from checkpointer.store.json_files import JsonFiles
from checkpointer.store.manifest import FILE, Damaged, Manifest, NewerFormat, decode, part_problem
from paramserver import SlotMap

#: Manifests kept in mind: a few KB each.
MANIFESTS_MAX = 1_024
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One folder. No manifest and no problem: unfinished. A problem: refused, and by name."""

    name: str
    number: int
    manifest: Manifest | None
    gates: Gates | None
    problem: str = ""


class Catalogue:
    """Reads and writes the layout above. A manifest once read is kept in mind, and what the gates
    found: neither ever changes, and who deletes a checkpoint deletes its folder."""

    def __init__(self, files: Files, model: str) -> None:
        if not model or model.startswith(".") or "/" in model:
            raise ValueError(
                f"model name {model!r}: it names a folder, so it may be neither empty nor hold a "
                f"'/'"
            )
        self.files = files
        self.model = model
        self._json = JsonFiles(files, model)
        self._manifests: dict[str, Manifest] = {}
        self._gates: dict[str, Gates] = {}
        self._parents: dict[str, str] = {}  # checksum of a manifest -> its folder, as a child says

    # --- reading ---

    def names(self) -> list[str]:
        """The checkpoints' folders, oldest first, complete or not."""
        return [name for name in self.files.names(self.model) if number_of(name) is not None]

    def manifest(self, name: str, sha256: str | None = None) -> Manifest:
        """Raises Damaged, naming the file, if it is missing or not what it should be."""
        known = self._manifests.get(name)
        if known is not None and sha256 in (None, known.sha256):
            return known
        path = f"{self.model}/{name}/{FILE}"
        try:
            data = self.files.read(path)
        except FileNotFoundError as error:
            raise Damaged(f"{path}: missing") from error
        manifest = decode(data, sha256, path)
        if manifest.model != self.model or manifest.name != name:
            raise Damaged(f"{path}: it is the manifest of {manifest.model}/{manifest.name}")
        self._keep(manifest)
        return manifest

    def _keep(self, manifest: Manifest) -> None:
        """In mind, the last MANIFESTS_MAX of them."""
        self._manifests[manifest.name] = manifest
        if manifest.parent is not None and manifest.parent_name:
            self._parents[manifest.parent] = manifest.parent_name
        _bound(self._manifests)
        _bound(self._parents)

    def entries(self) -> list[Entry]:
        """All folders, oldest first. One that vanishes meanwhile, or holds only half a file,
        counts as unfinished."""
        found = []
        for name in self.names():
            manifest, problem = None, ""
            if self._is_complete(name):
                try:
                    manifest = self.manifest(name)
                except Damaged as error:
                    problem = str(error)
            found.append(Entry(name, number_of(name) or 0, manifest, self.gates(name), problem))
        names = {entry.name for entry in found}
        _keep_only(self._manifests, names)  # a thousand that are gone would be 14 MB
        _keep_only(self._gates, names)
        return found

    def _is_complete(self, name: str) -> bool:
        """Whether its manifest is there, whatever it says. One that was read is not looked for."""
        return name in self._manifests or FILE in self.files.names(f"{self.model}/{name}")

    def newest_first(self) -> Iterator[Manifest]:
        """The complete checkpoints that training may go on from: those after a rollback of
        training, then its target and what lies before (X4). Raises NewerFormat at one that a later
        version of this program has written."""
        rollback = self.training_rollback()
        for name in reversed(self.names()):
            number = number_of(name) or 0
            if rollback is not None and rollback[0].number < number <= rollback[1]:
                continue
            if rollback is not None and number == rollback[0].number and name != rollback[0].name:
                continue
            try:
                yield self.manifest(name)
            except NewerFormat:
                raise
            except Damaged:
                continue  # unfinished, or refused: `entries` tells which

    def head(self, verify: bool = False) -> Manifest | None:
        """The head complete cut, published or not: shards restore from it, and it is the parent of
        the next (X2, X4).

        With `verify` every part is read, down to the base of a delta; the first checkpoint found
        whole is the head.
        """
        for manifest in self.newest_first():
            if not verify or not self.chain_problems(manifest):
                return manifest
        return None

    def chain(self, manifest: Manifest, held: str | None = None) -> tuple[Manifest, ...]:
        """What must be loaded to arrive at a checkpoint, oldest first, by one who holds `held`
        (X3). Raises Damaged."""
        return steps(manifest, held, self._by_checksum)

    def serving_chain(self, manifest: Manifest, held: Manifest | None) -> tuple[ServingStep, ...]:
        """What a replica that holds `held` loads to arrive at a checkpoint, oldest first (X3).
        Lists nothing where children name their parents. Raises Damaged."""
        return serving_steps(manifest, held, self._by_checksum)

    def _by_checksum(self, sha256: str) -> Manifest | None:
        name = self._parents.get(sha256)
        if name is not None:
            with suppress(Damaged):
                return self.manifest(name, sha256)
        for name in reversed(self.names()):
            with suppress(Damaged):
                if (manifest := self.manifest(name)).sha256 == sha256:
                    return manifest
        return None

    def chain_problems(self, manifest: Manifest) -> list[str]:
        """What is wrong with a checkpoint or anything that it builds on, down to its base, by
        name."""
        try:
            return [problem for one in self.chain(manifest) for problem in self.problems(one)]
        except Damaged as error:
            return [str(error)]

    def problems(self, manifest: Manifest) -> list[str]:
        """What is wrong with the parts of a checkpoint, by name."""
        found = []
        for part in manifest.parts:
            path = f"{self.model}/{manifest.name}/{part.path}"
            try:
                problem = part_problem(part, self.files.read(path))
            except FileNotFoundError:
                problem = f"{part.path}: missing"
            if problem is not None:
                found.append(f"{manifest.name}/{problem}")
        return found

    def serving_problems(self, manifest: Manifest) -> list[str]:
        """What is wrong with what replicas read of a checkpoint, by name."""
        found = []
        for file in (file for part in manifest.parts for file in part.serving):
            path = f"{self.model}/{manifest.name}/{file.path}"
            try:
                problem = part_problem(file, self.files.read(path))
            except FileNotFoundError:
                problem = f"{file.path}: missing"
            if problem is not None:
                found.append(f"{manifest.name}/{problem}")
        return found

    def part_url(self, manifest: Manifest, shard: int) -> str:
        """Where a shard's part stands. Raises Damaged if the checkpoint has none for it."""
        for part in manifest.parts:
            if part.shard == shard:
                return self.files.url(f"{self.model}/{manifest.name}/{part.path}")
        raise Damaged(
            f"{manifest.name}: no part of shard {shard}, only of "
            f"{[p.shard for p in manifest.parts]}"
        )

    def folder_url(self, name: str) -> str:
        return self.files.url(f"{self.model}/{name}")

    def gates(self, name: str) -> Gates | None:
        """None = the gates have not been asked yet, or what they said cannot be read: ask them
        again."""
        if name in self._gates:
            return self._gates[name]
        try:
            found = self._json.parsed(f"{name}/gates.json", decode_gates)
        except Damaged as error:
            _log.warning("%s: the checkpoint counts as not judged", error)
            return None
        if found is not None:
            self._gates[name] = found
            _bound(self._gates)
        return found

    def published(self) -> Ref | None:
        """The newest published checkpoint. Raises Damaged if the pointer cannot be read: `mend`
        writes it anew."""
        return self._json.parsed(
            "published.json",
            lambda body: _ref((body["number"], body["name"], body["manifest_sha256"])),
        )

    def published_refs(self) -> list[Ref]:
        """All published checkpoints that are still there, oldest first."""
        refs = []
        for entry in self.entries():
            if entry.manifest is not None and entry.gates is not None and entry.gates.passed:
                refs.append(Ref(entry.number, entry.name, entry.manifest.sha256))
        return refs

    def hold(self) -> Hold:
        """The operator's hold on serving. Raises Damaged if neither the file nor its copy can be
        read."""
        return self._json.parsed_twice("hold.json", _hold) or Hold()

    def pins(self) -> dict[str, str]:
        """Folders that an operator wants kept -> why. Raises Damaged if neither the file nor its
        copy can be read."""
        return self._json.parsed_twice("pins.json", _pins) or {}

    def training_rollback(self) -> tuple[Ref, int] | None:
        """The checkpoint training went back to, and the highest number there was then."""
        rollback = self._rollback()
        return None if rollback is None else rollback[:2]

    def _rollback(self) -> tuple[Ref, int, int] | None:
        """As `training_rollback`, and the epoch of the map that came back (S6)."""
        return self._json.parsed_twice("training.json", _rollback)

    def slot_map(self, manifest: Manifest) -> SlotMap | None:
        """The map that shards take from a head (S6). None: as configured; it was written before
        maps were."""
        if not manifest.slot_owners:
            return None
        rollback = self._rollback()
        after = rollback[2] if rollback is not None and manifest.number <= rollback[0].number else 0
        return SlotMap.decode(max(manifest.map_epoch, after), manifest.slot_owners)

    def begun(self) -> dict[str, int] | None:
        """chain -> E at which the model began (S5); None = nobody has begun it."""
        return self._json.parsed(
            "begin.json", lambda body: {str(c): int(end) for c, end in body["vector"].items()}
        )

    def successor(self) -> str:
        """The model that replicas of this one serve; its own name where nothing was promoted."""
        return self._json.parsed_twice("successor.json", _successor) or self.model

    # --- writing ---

    def write_begun(self, vector: dict[str, int]) -> None:
        """Once in a model's life, before any shard is told."""
        self._json.write("begin.json", {"vector": vector})

    def write_manifest(self, manifest: Manifest) -> Ref:
        """The checkpoint becomes complete. Its parts are durable already."""
        self.files.write(f"{self.model}/{manifest.name}/{FILE}", manifest.encode())
        return Ref(manifest.number, manifest.name, manifest.sha256)

    def write_gates(self, name: str, gates: Gates) -> None:
        self._gates.pop(name, None)  # whatever becomes of the write
        self._json.write(f"{name}/gates.json", asdict(gates))

    def write_published(self, ref: Ref) -> None:
        """Moves the pointer forward; one that already points there or beyond stays. One that cannot
        be read is written anew."""
        try:
            there = self.published()
        except Damaged as error:
            _log.error("%s: it is written anew", error)
            there = None
        if there is None or ref.number > there.number:
            self._json.write("published.json", {**ref._asdict(), "url": self.folder_url(ref.name)})

    def write_hold(self, hold: Hold) -> None:
        self._json.write_twice(
            "hold.json", {"revision": hold.revision, "ref": hold.ref, "reason": hold.reason}
        )

    def write_pins(self, pins: dict[str, str]) -> None:
        """These are kept, and what they build on, until an operator says otherwise."""
        self._json.write_twice("pins.json", {"pins": pins})

    def write_training_rollback(self, ref: Ref) -> None:
        """Training goes on from this one: what was cut after it is no head any more, and stays only
        to be looked at. The map that it brings back has an epoch above all there were (S6)."""
        above = max((number_of(name) or 0 for name in self.names()), default=ref.number)
        epochs = [self.slot_map(e.manifest) for e in self.entries() if e.manifest is not None]
        epoch = 1 + max((known.epoch for known in epochs if known is not None), default=0)
        self._json.write_twice("training.json", {"ref": ref, "above": above, "map_epoch": epoch})

    def write_successor(self, model: str) -> None:
        """From now on replicas of this model serve that one."""
        self._json.write_twice("successor.json", {"model": model})

    def mend(self) -> list[str]:
        """Write anew what a power cut or somebody's hand has left unreadable of the files that say
        what is in force: the pointer from the checkpoints that are there, the operator's from their
        copies. Returns what was done."""
        done = []
        try:
            published = self.published()
        except Damaged as error:
            published = None
            done.append(str(error))
        if published is None and (refs := self.published_refs()):
            self._json.write(
                "published.json", {**refs[-1]._asdict(), "url": self.folder_url(refs[-1].name)}
            )
            done.append(
                f"published.json points at {refs[-1].name}, the newest published checkpoint there "
                f"is"
            )
        for name, parse in {
            "hold.json": _hold,
            "pins.json": _pins,
            "training.json": _rollback,
            "successor.json": _successor,
        }.items():
            try:
                self._json.parsed(name, parse)
            except Damaged as error:
                done.append(str(error))
                with suppress(Damaged):
                    if self._json.parsed(f"{name}.copy", parse) is not None:
                        self._json.write(name, self._json.read(f"{name}.copy"))
                        done.append(f"{name} is as its copy")
        return done

    def next_number(self) -> int:
        """One more than any complete checkpoint has; an attempt that was abandoned leaves its
        number to the next."""
        numbered = {name: number_of(name) or 0 for name in self.names()}
        for name in sorted(numbered, key=lambda name: numbered[name], reverse=True):
            if self._is_complete(name):
                return numbered[name] + 1
        return 0

    def delete(self, name: str) -> None:
        """The manifest first: half a deletion leaves no checkpoint rather than half of one."""
        self._manifests.pop(name, None)
        self._gates.pop(name, None)
        self.files.delete(f"{self.model}/{name}/{FILE}")
        self.files.delete(f"{self.model}/{name}")

    def sweep(self, keep: Keep, only_look: bool = False) -> list[str]:
        """Delete what retention gives up, or only look. Returns the names. Raises Damaged if nobody
        knows what is held or pinned."""
        head = self.head()
        pins = [self.published(), self.hold().ref]
        entries = [_kept(entry) for entry in self.entries()]
        doomed = expired(
            entries,
            head.name if head else None,
            keep,
            [*self.pins(), *(pin.name for pin in pins if pin is not None)],
        )
        if only_look:
            return doomed
        for name in reversed(
            doomed
        ):  # deltas before what they build on: whatever is left can be loaded
            self.delete(name)
        return doomed

    def sweep_drafts(self, age_ms: int) -> int:
        """Delete what writers left half written, if it is older than this. Returns how many
        files that were."""
        return self.files.sweep_drafts(self.model, age_ms)


def _bound(kept: dict[str, T]) -> None:
    """To the last MANIFESTS_MAX."""
    while len(kept) > MANIFESTS_MAX:
        del kept[next(iter(kept))]


def _keep_only(kept: dict[str, T], names: Collection[str]) -> None:
    for name in list(kept):
        if name not in names:
            kept.pop(name, None)


def _ref(parts: Sequence[Any]) -> Ref:
    number, name, sha256 = parts
    if type(number) is not int or not isinstance(name, str) or not isinstance(sha256, str):
        raise TypeError(f"checkpoint {parts!r}: expected number, name and checksum")
    return Ref(number, name, sha256)


def _hold(body: Any) -> Hold:
    if type(body["revision"]) is not int:
        raise TypeError(f"revision {body['revision']!r}")
    return Hold(
        body["revision"], None if body["ref"] is None else _ref(body["ref"]), str(body["reason"])
    )


def _pins(body: Any) -> dict[str, str]:
    return {str(name): str(reason) for name, reason in body["pins"].items()}


def _rollback(body: Any) -> tuple[Ref, int, int]:
    return _ref(body["ref"]), int(body["above"]), int(body.get("map_epoch", 0))


def _successor(body: Any) -> str:
    if not isinstance(body["model"], str) or not body["model"]:
        raise TypeError(f"model {body['model']!r}")
    return str(body["model"])


def number_of(name: str) -> int | None:
    """The number of a checkpoint's folder; None = another file or folder."""
    number, dash, cut = name.partition("-")
    is_number = len(number) >= 8 and number.isascii() and number.isdigit()
    return int(number) if is_number and dash and cut else None


def _kept(entry: Entry) -> Kept:
    manifest = entry.manifest
    if manifest is None:
        # A damaged manifest is kept like a rejected one: somebody will want to look at it.
        return Kept(entry.name, entry.number, sha256=entry.problem or None, rejected=True)
    rejected = entry.gates is not None and not entry.gates.passed
    judged = entry.gates is not None
    return Kept(
        entry.name,
        entry.number,
        manifest.sha256,
        manifest.parent,
        rejected,
        manifest.is_full,
        judged,
        manifest.created_ms,
    )
