"""The registry of features: what `[features.NAME]` declares, checked when it is read.

A declaration says what an event sends (its columns), what a model reads of it (its options), and
whose it is. Training and serving take it from one place: the definition of a model carries the
declarations of the features that it uses, so a checkpoint is read as it was trained.
"""

import math
import re
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import pyarrow as pa

from stream.columns.column_kinds import (
    CATEGORICAL,
    IMAGE,
    LIST,
    LIST_VALUES_MAX,
    NUMERIC,
    TEXT,
    TIME,
    VECTOR,
    VECTOR_WIDTH_MAX,
    WEIGHTS,
)
from stream.columns.events import WEIGHTS_SUFFIX, FeatureColumn
from stream.columns.kept_options import (
    RATE,
    TS_MS,
    check_counter,
    check_sequence,
)
from stream.options import option

#: What another team's service says, and sometimes cannot; it travels as a number or a vector.
COMPONENT = "component"
#: What the pipeline itself counts: no event sends it (docs/features.md).
COUNTER = "counter"
#: The newest clicks of somebody, which the pipeline itself keeps: no event sends it either.
SEQUENCE = "sequence"
KINDS = (CATEGORICAL, NUMERIC, LIST, TEXT, TIME, VECTOR, IMAGE, COMPONENT, COUNTER, SEQUENCE)
STRING, INTEGER = "string", "integer"
NFC, NFKC, LOWER, DIGITS = "nfc", "nfkc", "lower", "digits"
SUM, MEAN, SQRT, ATTENTION = POOLS = ("sum", "mean", "sqrt", "attention")
WORDS, PAIRS, CHARACTERS = TOKENS = ("words", "pairs", "characters")
HOUR, WEEKDAY, HOUR_OF_WEEK, AGE = PARTS = ("hour", "weekday", "hour_of_week", "age")
TRANSFORMS = ("none", "log1p")
QUARANTINE, MISSING = UNREADABLE = ("quarantine", "missing")
ITEM = "item"
_TOPIC = re.compile("[A-Za-z0-9._-]{1,200}")
TOKENS_MAX, CHARACTERS_MAX, QUANTILES_MAX = 4_096, 16, 64

#: Kinds whose values may stand in a catalogue.
LOOKED_UP = (CATEGORICAL, NUMERIC, LIST, TEXT, TIME, VECTOR, IMAGE, COMPONENT)
#: Options by the kinds that have them; the others belong to every kind.
_OF_KIND = {
    "type": (CATEGORICAL, LIST),
    "default": (CATEGORICAL, LIST, TEXT, TIME, NUMERIC, VECTOR, COMPONENT, SEQUENCE),
    "normalise": (CATEGORICAL, LIST, TEXT, SEQUENCE),
    "personal": (CATEGORICAL,),
    "shares": (CATEGORICAL, LIST, SEQUENCE),
    "pool": (LIST, TEXT, SEQUENCE),
    "against": (LIST, TEXT, SEQUENCE),
    "weighted": (LIST,),
    "max_values": (LIST, SEQUENCE),
    "tokens": (TEXT,),
    "characters": (TEXT,),
    "max_tokens": (TEXT,),
    "transform": (NUMERIC, COMPONENT, COUNTER),
    "bounds": (NUMERIC, VECTOR, COMPONENT, COUNTER),
    "buckets": (NUMERIC, COUNTER),
    "piecewise": (NUMERIC, COUNTER),
    "standardise": (NUMERIC,),
    "quantiles": (NUMERIC,),
    "part": (TIME,),
    "of": (TIME, COUNTER, SEQUENCE),
    "by": (SEQUENCE,),
    "ages": (SEQUENCE,),
    "idle_ms": (SEQUENCE,),
    "half_life_ms": (COUNTER,),
    "gives": (COUNTER,),
    "prior_shows": (COUNTER,),
    "prior_clicks": (COUNTER,),
    "zone": (TIME,),
    "width": (VECTOR, COMPONENT),
    "missing_max": (COMPONENT,),
    "unreadable": (IMAGE,),
    "store": (IMAGE,),
    "catalogue": LOOKED_UP,
    "key": LOOKED_UP,
}
#: What says whose a feature is, and changes no number.
DESCRIBES = ("source", "owner", "since", "doc", "personal", "missing_max", "alias", "retired")


@dataclass(frozen=True)
class Feature:
    """A feature that events carry and models may read (docs/features.md)."""

    kind: str = option(
        CATEGORICAL,
        "'categorical', 'numeric', 'list' (of categories), 'text', 'time', 'vector', 'image', "
        "'component' (numbers of another team's service), 'counter' (which the pipeline counts) or "
        "'sequence' (clicks that it keeps)",
    )
    type: str = option(STRING, "categorical, list: 'string', or 'integer' where events send those")
    source: str = option("", "where its values come from, for people")
    owner: str = option("", "who answers for it, for people")
    since: str = option("", "since when it is sent, for people")
    doc: str = option("", "what it means, for people")
    catalogue: str = option(
        "",
        "the compacted topic of one partition that holds it, as 'items': it is joined to events, "
        "which do not send it (docs/features.md)",
    )
    key: str = option(
        "item",
        "with catalogue: the categorical feature (or item, vendor, source) whose value is the key "
        "of a row there",
    )
    alias: str = option("", "the name that it had: events and older records are read by it as well")
    retired: str = option(
        "", "since when it is no more: events may still send it, and no model may read it"
    )
    default: Any = field(
        default=None,
        metadata={
            "help": "what a missing one counts as: a category, a text or a number; '' and 0 where "
            "not given"
        },
    )
    normalise: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "steps before hashing, of 'nfc', 'nfkc', 'lower' and, of text, 'digits' (each "
            "becomes 0); text: ['nfkc', 'lower'] where not given, others: none"
        },
    )
    personal: bool = option(
        False, "it identifies a person: our producer pseudonymises it (categorical strings)"
    )
    shares: str = option(
        "",
        "categorical, list, sequence: the feature (or source, vendor, item) whose keys its values "
        "have, so that both learn the same rows",
    )
    pool: str = option(
        MEAN,
        "list, text, sequence: how the rows of its values become one: 'sum', 'mean', 'sqrt' (of "
        "n), or, in networks, 'attention' (each as far as it goes with the feature `against`)",
    )
    against: str = option(
        "", "list, text, sequence with pool = 'attention': a feature of one key, such as item"
    )
    weighted: bool = option(
        False, "list: events send NAME_weights too, a number for each value, or none"
    )
    max_values: int = option(
        64,
        "list: a model reads the first so many values. sequence: the newest so many clicks, at "
        "most 256; twice as many are kept",
    )
    tokens: str = option(
        WORDS,
        "text: 'words', 'pairs' (words and pairs of neighbours) or 'characters' (runs of them)",
    )
    characters: int = option(3, "text with tokens = 'characters': how many make a token")
    max_tokens: int = option(64, "text: a model reads the first so many tokens")
    transform: str = option("none", "numeric, component: 'log1p' (sign kept) or 'none'")
    bounds: tuple[float, ...] = option(
        (),
        "numeric, vector, component: [lowest, highest] value; one beyond is clipped to it and "
        "counted",
    )
    buckets: tuple[float, ...] = option(
        (), "numeric: rising bounds; the number of those at or below a value is its category"
    )
    piecewise: tuple[float, ...] = option(
        (),
        "numeric: rising knots; each piece between two is a number that goes from 0 to 1 within it",
    )
    standardise: bool = option(
        False,
        "numeric: read as deviations from the mean of what the stream has shown, after "
        "`transform`; a missing one is the mean",
    )
    quantiles: int = option(
        0,
        "numeric with bounds: read as so many numbers from 0 to 1, each for as large a share of "
        "what the stream has shown; a missing one is 0 in all",
    )
    part: str = option(
        HOUR,
        "time: its 'hour', 'weekday' (Monday is 0), 'hour_of_week', or its 'age' at the impression "
        "in powers of two of seconds: a category",
    )
    of: str = option(
        "",
        "time: 'ts_ms' = the impression's own time, which no event sends twice; '' = it is sent. "
        "counter: the categorical feature (or item, vendor, source) whose values are counted. "
        "sequence: the one whose value is kept of each click",
    )
    by: str = option(
        "",
        "sequence: whose clicks: the categorical feature (or source, vendor, item) by whose value "
        "they are kept, such as a declared user or session",
    )
    ages: bool = option(
        False,
        "sequence: gives, in the place of values, how long before the impression each click was, "
        "in powers of two of seconds",
    )
    idle_ms: int = option(
        2_592_000_000, "sequence: clicks of somebody who clicks nothing more for so long are gone"
    )
    zone: str = option("UTC", "time: the IANA time zone of hour and weekday")
    width: int = option(0, "vector: how many numbers; component: 0 = one number alone")
    missing_max: float = option(
        0.5,
        "component, and with catalogue: share of the last minutes' impressions without it above "
        "which `everspun status` and an alert say so",
    )
    unreadable: str = option(
        QUARANTINE,
        "image: what is no picture, or too large: 'quarantine' its record, or take it as 'missing'",
    )
    store: str = option(
        "",
        "image: folder or fsspec URL of files named by the SHA-256 of their bytes, which events "
        "then send; '' = events send the files",
    )
    half_life_ms: int = option(
        86_400_000, "counter: what was counted so long ago counts half, ms; 0 = all counts alike"
    )
    gives: str = option(
        RATE,
        "counter: the 'rate' of clicks, smoothed; the number of 'shows'; or that of 'clicks'",
    )
    prior_shows: float = option(
        20.0, "counter: a rate begins as if a value had been shown so often before it ever was"
    )
    prior_clicks: float = option(1.0, "counter: and as if it had been clicked so often")

    def __post_init__(self) -> None:
        for name in ("normalise", "bounds", "buckets", "piecewise"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))
        _one_of(self, "kind", KINDS)
        for f in fields(self):
            kinds, value = _OF_KIND.get(f.name, KINDS), getattr(self, f.name)
            watched = f.name == "missing_max" and self.catalogue
            if value != f.default and self.kind not in kinds and not watched:
                raise ValueError(
                    f"{f.name} = {value!r}: kind {self.kind!r} has none; leave it out, or make it "
                    f"a {' or '.join(kinds)}"
                )
        for name, allowed in (("type", (STRING, INTEGER)), ("pool", POOLS), ("tokens", TOKENS)):
            _one_of(self, name, allowed)
        _one_of(self, "part", PARTS)
        _one_of(self, "transform", TRANSFORMS)
        _one_of(self, "unreadable", UNREADABLE)
        if self.kind == IMAGE and find_spec("PIL") is None:
            raise ValueError("kind = 'image': Pillow is missing; pip install 'everspun[images]'")
        for name, most in (
            ("max_values", LIST_VALUES_MAX),
            ("max_tokens", TOKENS_MAX),
            ("characters", CHARACTERS_MAX),
        ):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 to {most}")
        if (self.pool == ATTENTION) != bool(self.against):
            raise ValueError(
                f"pool = {self.pool!r}, against = {self.against!r}: attention is against another "
                f"feature, such as against = 'item', and nothing else is"
            )
        self._check_steps()
        self._check_numbers()
        self._check_time()
        least = 1 if self.kind == VECTOR else 0
        if not least <= self.width <= VECTOR_WIDTH_MAX:
            raise ValueError(f"width = {self.width}: allowed is {least} to {VECTOR_WIDTH_MAX}")
        if not 0.0 < self.missing_max <= 1.0:
            raise ValueError(f"missing_max = {self.missing_max}: allowed is above 0 to 1")
        if self.alias and (not self.alias.isidentifier() or self.weighted or self.personal):
            raise ValueError(
                f"alias = {self.alias!r}: allowed is another name of a feature that is neither "
                f"weighted nor personal"
            )
        if self.store and self.unreadable != QUARANTINE:
            raise ValueError(
                f"unreadable = {self.unreadable!r}: a picture of a store is missing where it is "
                f"none; leave it out"
            )
        self._check_default()
        self._check_catalogue()

    def _check_catalogue(self) -> None:
        if not self.catalogue:
            if self.key != ITEM:
                raise ValueError(f"key = {self.key!r}: of a feature of a catalogue alone")
            return
        if not _TOPIC.fullmatch(self.catalogue):
            raise ValueError(
                f"catalogue = {self.catalogue!r}: allowed are letters, digits, '.', '_' and '-', "
                f"the name of a topic without stream.topic_prefix"
            )
        for name in ("of", "personal"):
            if getattr(self, name):
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: a feature of a catalogue has none"
                )
        if self.kind == IMAGE and not self.store:
            raise ValueError("catalogue: pictures stand there by the SHA-256 of a store's file")

    def _check_steps(self) -> None:
        allowed = (NFC, NFKC, LOWER) + ((DIGITS,) if self.kind == TEXT else ())
        if wrong := [step for step in self.normalise or () if step not in allowed]:
            raise ValueError(f"normalise = {wrong}: allowed are {', '.join(map(repr, allowed))}")

    def _check_numbers(self) -> None:
        for name in ("bounds", "buckets", "piecewise"):
            values = getattr(self, name)
            rising = all(a < b for a, b in pairwise(values))
            if not all(map(math.isfinite, values)) or not rising:
                raise ValueError(f"{name} = {list(values)}: allowed are finite numbers that rise")
        if self.bounds and len(self.bounds) != 2:
            raise ValueError(f"bounds = {list(self.bounds)}: allowed are two numbers")
        if len(self.piecewise) == 1:
            raise ValueError(f"piecewise = {list(self.piecewise)}: a piece needs two knots")
        if not 0 <= self.quantiles <= QUANTILES_MAX:
            raise ValueError(f"quantiles = {self.quantiles}: allowed is 0 to {QUANTILES_MAX}")
        if self.quantiles and not self.bounds:
            raise ValueError("quantiles: state bounds, within which they are looked for")
        learned = [n for n in ("standardise", "quantiles") if getattr(self, n)]
        several = [n for n in ("buckets", "piecewise") if getattr(self, n)]
        if len(learned + several) > 1:
            raise ValueError(
                f"{learned[0] if learned else several[0]}: one of buckets, piecewise, standardise "
                f"and quantiles, not several; declare another feature for the other"
            )
        if self.width and self.transform != "none":
            raise ValueError(f"transform = {self.transform!r}: of a width of 0 alone")
        if len(several) > 1 or (several and self.transform != "none"):
            raise ValueError(
                f"{several[0]}: one of buckets, piecewise and transform, not several; declare "
                f"another feature for the other"
            )

    def _check_time(self) -> None:
        if self.kind == COUNTER:
            return check_counter(self)
        if self.kind == SEQUENCE:
            return check_sequence(self)
        if self.of not in ("", TS_MS):
            raise ValueError(f"of = {self.of!r}: allowed are '' (it is sent) and {TS_MS!r}")
        if self.of and self.part == AGE and self.kind == TIME:
            raise ValueError(f"part = {AGE!r} of {TS_MS!r}: that is 0 always; send another time")
        if self.kind == TIME and not is_zone(self.zone):
            raise ValueError(f"zone = {self.zone!r}: allowed are IANA names, as 'Europe/Berlin'")

    def _check_default(self) -> None:
        value, wanted = self.default, "a string"
        if value is None:
            return
        if self.kind in (NUMERIC, VECTOR, COMPONENT, COUNTER):
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            fits, wanted = fits and math.isfinite(value), "a finite number"
        else:
            fits = isinstance(value, str)
        if not fits:
            raise ValueError(f"default = {value!r}: expected {wanted}")

    def columns(self, name: str) -> tuple[FeatureColumn, ...]:
        """What of it an event sends: one column, a second one of weights, or none."""
        return () if self.catalogue else self._sent_columns(name)

    def catalogue_columns(self, name: str) -> tuple[FeatureColumn, ...]:
        """What of it stands in a catalogue, and no event sends (A3)."""
        return self._sent_columns(name) if self.catalogue else ()

    def _sent_columns(self, name: str) -> tuple[FeatureColumn, ...]:
        if self.of or self.retired:
            return ()
        forgiving, kind = self.unreadable == MISSING, self.kind
        if kind == COMPONENT:
            kind = VECTOR if self.width else NUMERIC
        is_stored = bool(self.store)
        own = FeatureColumn(
            name,
            kind,
            self.personal,
            self.type == INTEGER,
            self.width,
            forgiving,
            is_stored,
            self.alias,
        )
        if self.weighted:
            return own, FeatureColumn(name + WEIGHTS_SUFFIX, WEIGHTS)
        return (own,)

    def joined_columns(self, name: str) -> tuple[FeatureColumn, ...]:
        """What of it the labeler adds to an impression, and no event sends."""
        if not self.kept_by:
            return ()
        return (FeatureColumn(name, LIST if self.kind == SEQUENCE else NUMERIC),)

    @property
    def kept_by(self) -> str:
        """By whose value the pipeline keeps what it gives of it; "" = it keeps nothing."""
        return "" if self.retired else {COUNTER: self.of, SEQUENCE: self.by}.get(self.kind, "")

    @property
    def looked_up_by(self) -> str:
        """The feature by whose value it is known; "" = an event sends it."""
        if self.catalogue:
            return self.key
        return self.kept_by

    @property
    def is_bag(self) -> bool:
        """Whether a row has any number of keys of it."""
        return self.kind in (LIST, TEXT, SEQUENCE)

    @property
    def is_plain(self) -> bool:
        """Whether its value is hashed as it is sent, or is a number alone."""
        if self.catalogue:
            return False
        if self.kind == CATEGORICAL:
            return self.type == STRING and not self.steps and not self.default
        read_otherwise = self.buckets or self.piecewise or self.is_scaled
        return self.kind == NUMERIC and not read_otherwise

    @property
    def is_scaled(self) -> bool:
        """Whether a model reads it by what the stream has shown of it."""
        return self.standardise or self.quantiles > 0

    @property
    def is_number(self) -> bool:
        """Whether its column is one number a row."""
        return self.kind in (NUMERIC, COUNTER)

    @property
    def is_keyed(self) -> bool:
        """Whether a model reads it as keys; else as numbers."""
        return self.kind in (CATEGORICAL, LIST, TEXT, TIME, SEQUENCE) or bool(self.buckets)

    @property
    def steps(self) -> tuple[str, ...]:
        """Of normalisation."""
        if self.normalise is None:
            return (NFKC, LOWER) if self.kind == TEXT else ()
        return self.normalise

    def number_names(self, name: str) -> tuple[str, ...]:
        """Of the numbers that a model reads of it."""
        count = self.width or self.quantiles or len(self.piecewise) - 1
        count = 0 if self.is_keyed else count
        own = tuple(f"{name}[{i}]" for i in range(count)) if count > 0 else (name,)
        return (*own, f"{name} missing") if self.kind == COMPONENT else own

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: what differs from the defaults, and the kind."""
        return {
            f.name: list(value) if isinstance(value, tuple) else value
            for f in fields(self)
            if (value := getattr(self, f.name)) != f.default or f.name == "kind"
        }


def _one_of(declared: Feature, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(declared, name)
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: allowed are {', '.join(map(repr, allowed))}")


def is_zone(name: str) -> bool:
    """Whether the time zone is known here."""
    import pyarrow.compute as pc  # not before a time is declared

    try:
        pc.hour(pa.array([0], pa.timestamp("ms", name)))
    except pa.ArrowException:
        return False
    return True
