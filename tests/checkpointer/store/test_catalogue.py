import pytest

from checkpointer.retention import Keep
from checkpointer.store.announcement import Hold
from checkpointer.store.catalogue import Catalogue, number_of
from checkpointer.store.files import MemoryFiles
from checkpointer.store.gate_findings import Gates
from checkpointer.store.manifest import Damaged
from paramserver import SlotMap


@pytest.fixture
def catalogue():
    return Catalogue(MemoryFiles(), "clicks")


def test_a_checkpoint_without_a_manifest_does_not_exist(catalogue, write):
    catalogue.files.write("clicks/00000000-a/part-0.safetensors", b"x")
    assert catalogue.head() is None
    assert catalogue.next_number() == 0
    assert [e.manifest for e in catalogue.entries()] == [None]
    ref = write(catalogue, 0)
    assert catalogue.head().sha256 == ref.manifest_sha256
    assert catalogue.next_number() == 1


def test_the_head_is_complete_whether_published_or_not(catalogue, write):
    write(catalogue, 0)
    write(catalogue, 1, outcome="rejected")
    write(catalogue, 2, outcome=None)
    assert catalogue.head().number == 2
    assert catalogue.published().number == 0
    assert [r.number for r in catalogue.published_refs()] == [0]


def test_damage_is_refused_by_name_and_the_last_good_one_is_used(catalogue, write):
    good, bad = write(catalogue, 1), write(catalogue, 2)
    path = f"clicks/{bad.name}/part-1.safetensors"
    catalogue.files.contents[path] = b"X" + catalogue.files.contents[path][1:]
    fresh = Catalogue(catalogue.files, "clicks")
    assert fresh.problems(fresh.manifest(bad.name)) == [
        f"{bad.name}/part-1.safetensors: contents differ from the manifest's checksum "
        + fresh.manifest(bad.name).parts[1].sha256[:12]
    ]
    assert fresh.head(verify=True).name == good.name
    catalogue.files.delete(path)
    assert fresh.problems(fresh.manifest(bad.name)) == [f"{bad.name}/part-1.safetensors: missing"]
    catalogue.files.contents[f"clicks/{bad.name}/manifest.json"] += b" "
    fresh = Catalogue(catalogue.files, "clicks")
    assert fresh.head().name == good.name
    assert "contents differ" in fresh.entries()[1].problem
    assert fresh.next_number() == 3  # its number is not used twice


def test_a_manifest_in_anothers_folder_is_refused(catalogue, write):
    ref = write(catalogue, 1)
    catalogue.files.write(
        "clicks/00000002-c/manifest.json", catalogue.files.read(f"clicks/{ref.name}/manifest.json")
    )
    with pytest.raises(Damaged, match="it is the manifest of clicks/00000001-c"):
        catalogue.manifest("00000002-c")


def test_training_rolled_back_goes_on_from_the_target(catalogue, write):
    refs = [write(catalogue, n) for n in range(4)]
    catalogue.write_training_rollback(refs[1])
    assert catalogue.head().number == 1
    assert catalogue.next_number() == 4
    write(catalogue, 4, parent=refs[1].manifest_sha256)
    assert [m.number for m in catalogue.newest_first()] == [4, 1, 0]


def test_the_map_of_a_rollback_is_newer_than_every_map_there_was(catalogue, write):
    """S6: shards take the map of the head only if its epoch is above theirs."""
    maps = [SlotMap.even(1), SlotMap.even(1).resized(2), SlotMap.even(1).resized(2).resized(3)]
    refs = [
        write(catalogue, number, slot_owners=one.encode(), map_epoch=one.epoch)
        for number, one in enumerate(maps)
    ]
    old = catalogue.head()
    assert catalogue.slot_map(old) == maps[2]
    catalogue.write_training_rollback(refs[0])
    head = catalogue.head()
    assert head.number == 0
    assert catalogue.slot_map(head) == SlotMap.decode(maps[2].epoch + 1, maps[0].encode())
    assert catalogue.slot_map(old) == maps[2], "what is no head any more is as it was"
    write(catalogue, 3, slot_owners=maps[1].encode(), map_epoch=9)
    assert catalogue.slot_map(catalogue.head()).epoch == 9


def test_pointer_and_hold(catalogue, write):
    assert catalogue.hold() == Hold()
    assert catalogue.published() is None
    first, second = write(catalogue, 0), write(catalogue, 1)
    catalogue.write_published(first)
    assert catalogue.published() == second
    catalogue.files.write(
        "clicks/published.json", catalogue.files.read("clicks/published.json") + b" "
    )
    catalogue.write_published(second)
    assert catalogue.files.read("clicks/published.json").endswith(b" "), "it points there already"
    catalogue.write_hold(Hold(1, first, "bad"))
    assert catalogue.hold() == Hold(1, first, "bad")
    catalogue.files.write("clicks/hold.json", b"{")
    assert catalogue.hold() == Hold(1, first, "bad"), "its copy counts"
    catalogue.files.delete("clicks/hold.json.copy")
    with pytest.raises(Damaged, match=r"clicks/hold\.json"):
        catalogue.hold()


def test_sweep_keeps_what_is_served_and_held(catalogue, write):
    refs = [write(catalogue, n) for n in range(6)]
    catalogue.write_hold(Hold(1, refs[1]))
    assert catalogue.sweep(Keep(2, 1)) == [refs[n].name for n in (0, 2, 3)]
    assert catalogue.names() == [refs[n].name for n in (1, 4, 5)]


def test_gates_are_remembered(catalogue, write):
    ref = write(catalogue, 0, outcome=None)
    assert catalogue.gates(ref.name) is None
    catalogue.write_gates(ref.name, Gates("rejected", "nan", 7))
    assert catalogue.gates(ref.name) == Gates("rejected", "nan", 7)


def test_part_urls(catalogue, write):
    write(catalogue, 0)
    assert catalogue.part_url(catalogue.head(), 1).endswith("clicks/00000000-c/part-1.safetensors")
    with pytest.raises(Damaged, match="no part of shard 5"):
        catalogue.part_url(catalogue.head(), 5)


@pytest.mark.parametrize(
    ("name", "number"),
    [("00000012-a", 12), ("published.json", None), ("0012-a", None), ("0000001²-a", None)],
)
def test_folder_names(name, number):
    assert number_of(name) == number


@pytest.mark.parametrize("name", ["", "a/b", ".x"])
def test_a_model_name_is_a_folder(name):
    with pytest.raises(ValueError, match="model name"):
        Catalogue(MemoryFiles(), name)


@pytest.mark.parametrize("said", [b"", b"{}", b"[]", b"\0" * 99, b'{"ref": [1, 2], "revision": 0}'])
def test_what_a_power_cut_left_of_the_pointers_is_mended(catalogue, write, said):
    first, second = write(catalogue, 0), write(catalogue, 1)
    catalogue.write_hold(Hold(3, first, "why"))
    catalogue.write_training_rollback(first)
    catalogue.write_successor("other")
    for name in ("published.json", "hold.json", "training.json", "successor.json"):
        catalogue.files.write(f"clicks/{name}", said)
    with pytest.raises(Damaged, match=r"published\.json"):
        catalogue.published()
    done = catalogue.mend()
    assert any("newest published" in line for line in done)
    assert catalogue.published() == second
    for name in ("hold.json", "training.json", "successor.json"):
        catalogue.files.delete(f"clicks/{name}.copy")  # so what is read now is the file itself
    assert catalogue.hold() == Hold(3, first, "why")
    assert catalogue.training_rollback() == (first, 1)
    assert catalogue.successor() == "other"
    assert catalogue.mend() == []


def test_a_lost_pointer_is_written_anew_and_nothing_is_done_where_nothing_is_wrong(
    catalogue, write
):
    assert catalogue.mend() == []
    ref = write(catalogue, 0)
    assert catalogue.mend() == []
    catalogue.files.delete("clicks/published.json")
    assert len(catalogue.mend()) == 1
    assert catalogue.published() == ref


class Counting:
    """Files that count the calls that are made of them."""

    def __init__(self, inner):
        self.inner, self.calls = inner, []

    def __getattr__(self, name):
        method = getattr(self.inner, name)

        def call(path, *more):
            self.calls.append(f"{name} {path}")
            return method(path, *more)

        return call


def test_a_cut_asks_the_store_as_much_however_many_checkpoints_are_kept(write):
    """Sweeping and numbering read nothing again of what was read once."""
    catalogue, found = Catalogue(files := Counting(MemoryFiles()), "clicks"), []
    for number in range(12):
        write(catalogue, number)
        files.calls.clear()
        assert catalogue.next_number() == number + 1
        assert catalogue.sweep(Keep(100, 1)) == []
        found.append([call for call in files.calls if "clicks/0000" in call])
    assert [len(calls) for calls in found] == [3] * 12  # folder, manifest and gates of the newest


def test_who_only_reads_forgets_what_another_has_deleted(catalogue, write):
    refs = [write(catalogue, number) for number in range(12)]
    reader = Catalogue(catalogue.files, "clicks")
    assert len(reader.entries()) == len(reader._manifests) == len(reader._gates) == 12
    for ref in refs[:10]:
        catalogue.delete(ref.name)
    assert [entry.name for entry in reader.entries()] == [ref.name for ref in refs[10:]]
    assert {*reader._manifests, *reader._gates} == {ref.name for ref in refs[10:]}


BRACKETS = b"[" * 100_000


@pytest.mark.parametrize(
    ("path", "content", "ask"),
    [
        ("clicks/hold.json", BRACKETS, lambda c: c.hold()),
        ("clicks/training.json", BRACKETS, lambda c: c.training_rollback()),
        (
            "clicks/training.json",
            b'{"ref":[1,"a","b"],"above":1e999}',
            lambda c: c.training_rollback(),
        ),
        ("clicks/begin.json", b'{"vector":{"label/0":1e999}}', lambda c: c.begun()),
        ("clicks/published.json", b'{"a":' * 100_000, lambda c: c.published()),
    ],
)
def test_files_of_other_content_are_damaged_by_name(catalogue, path, content, ask):
    catalogue.files.write(path, content)
    with pytest.raises(Damaged, match=path):
        ask(catalogue)


@pytest.mark.parametrize(
    "content",
    [BRACKETS, b'{"outcome":"published","checked_ms":1,"results":[],"history":[[1e999]]}'],
)
def test_findings_of_other_content_are_none(catalogue, content):
    catalogue.files.write("clicks/00000001-ab/gates.json", content)
    assert catalogue.gates("00000001-ab") is None


def test_a_folder_of_other_digits_is_no_checkpoint(catalogue, write):
    catalogue.files.write("clicks/²²²²²²²²-x/a", b"")
    ref = write(catalogue, 0)
    assert catalogue.names() == [ref.name]
