from labeler.join import click_join as join
from labeler.process.warmup import warm_up


def test_warm_up_labels_something_and_compiles_the_join():
    assert warm_up() == 2
    assert join._match.signatures
    assert join._evict.signatures
