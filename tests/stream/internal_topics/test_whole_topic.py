import pytest

from stream import Partition
from stream.internal_topics import WholeTopic
from stream.log import LogError, MemoryLog

AT = Partition("evaluations", 0)


def values(topic):
    return [r.value for records in topic.poll(100, 0).values() for r in records]


def test_a_topic_that_is_made_later_is_read_from_its_first_record():
    log = MemoryLog(lambda: 0)
    topic = WholeTopic(log, "evaluations")
    with pytest.raises(LogError, match="there is no topic evaluations"):
        topic.poll(100, 0)
    log.create("evaluations", 1)
    log.append(AT, b"a")
    assert values(topic) == [b"a"]
    assert topic.gaps == 0
    topic.close()


@pytest.mark.parametrize("at_end", [False, True])
def test_of_a_topic_that_was_made_anew_no_record_is_passed_over(at_end):
    log = MemoryLog(lambda: 0)
    log.create("evaluations", 1)
    log.append(AT, b"a")
    log.append(AT, b"b")
    topic = WholeTopic(log, "evaluations", at_end)
    assert values(topic) == ([] if at_end else [b"a", b"b"])
    log.delete("evaluations")
    log.create("evaluations", 2)
    for number in range(5):
        log.append(AT, bytes([number]))
    log.append(Partition("evaluations", 1), b"c")
    assert values(topic) == []
    assert topic.gaps == 1
    assert sorted(values(topic)) == [*(bytes([number]) for number in range(5)), b"c"]


def test_what_retention_took_is_passed_over():
    log = MemoryLog(lambda: 0)
    log.create("evaluations", 1)
    topic = WholeTopic(log, "evaluations")
    assert values(topic) == []
    for number in range(3):
        log.append(AT, bytes([number]))
    log.delete_below(AT, 2)
    assert values(topic) + values(topic) == [b"\x02"]
    assert topic.gaps == 1
