"""Declarations of features that cannot be are named, with key, value and fix (docs/features.md)."""

import pytest

from everspun import loads
from everspun.config import ConfigError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[features.a]\nkind = "lst"', r"\[features.a\] kind = 'lst': allowed are"),
        ('[features.a]\nkind = "list"\npool = "max"', "pool = 'max': allowed are 'sum'"),
        ('[features.a]\nwidth = 3', "width = 3: kind 'categorical' has none"),
        ('[features.a]\nkind = "list"\npool = "attention"', "attention is against another"),
        ('[features.a]\nkind = "list"\nagainst = "item"', "pool = 'mean', against = 'item'"),
        (
            '[features.a]\nkind = "list"\npool = "attention"\nagainst = "item"\n'
            '[model]\ncategorical = ["item", "a"]',
            "pool = 'attention': kind 'lr' has none, networks",
        ),
        (
            '[features.a]\nkind = "list"\npool = "attention"\nagainst = "b"\n'
            '[model]\nkind = "mlp"\ncategorical = ["item", "a"]',
            "against = 'b': allowed are names in categorical",
        ),
        ('[features.a]\nkind = "component"\nmissing_max = 0', "missing_max = 0.0: allowed is"),
        ('[features.a]\nkind = "numeric"\nmissing_max = 0.1', "kind 'numeric' has none"),
        ('[features.a]\nkind = "component"\nwidth = 2\ntransform = "log1p"', "a width of 0 alone"),
        ('[features.a]\nkind = "image"\nunreadable = "no"', "allowed are 'quarantine', 'missing'"),
        ('[features.a]\nkind = "image"\n[model]\nimages = ["a"]', "kind 'lr' reads none"),
        ('[features.a]\nkind = "image"\n[model]\nnumeric = ["a"]', "image; list it in images"),
        ('[features.a]\nkind = "vector"', "width = 0: allowed is 1 to"),
        ('[features.a]\nkind = "list"\nmaxvalues = 3', "did you mean 'max_values'"),
        ('[features.a]\nkind = "time"\nzone = "Mars"', "zone = 'Mars': allowed are IANA names"),
        ('[features.a]\nkind = "numeric"\nbuckets = [2, 1]', "buckets = .* that rise"),
        ('[features.item]\nkind = "text"', "features = \\['item'\\]: allowed are names that no"),
        ('[features."a b"]', "feature 'a b': a name is letters"),
        ('[features.a]\nkind = "text"\n[model]\nnumeric = ["a"]', "declared text; list it in cat"),
        ('[features.a]\nkind = "vector"\nwidth = 2\n[model]\ncategorical = ["a"]', "list it in nu"),
        (
            '[features.a]\nkind = "text"\n[features.b]\nkind = "list"\n'
            '[model]\ncategorical = ["a*b"]',
            "may be a list or a text, not both",
        ),
        (
            '[features.a]\nkind = "list"\nshares = "item"\n[model]\ncategorical = ["a"]',
            "shares = 'item': allowed are other names in categorical",
        ),
        (
            '[stream]\ncategorical_features = ["a"]\n[features.a]\nkind = "text"',
            "declared once",
        ),
    ],
)  # fmt: skip
def test_a_declaration_that_cannot_be_is_named_with_its_fix(text, said):
    with pytest.raises(ConfigError, match=said):
        loads(text)
