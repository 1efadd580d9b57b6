"""A configuration with features of every kind, and a model that reads them all."""

from everspun import loads

TS_MS = 1_700_000_000_000
DECLARED = """
[stream]
partitions = 1
categorical_features = ["user"]

[features.genres]
kind = "list"
weighted = true
shares = "item"
pool = "sqrt"
max_values = 3
normalise = ["nfc", "lower"]

[features.seen]
kind = "list"
type = "integer"
pool = "attention"
against = "item"

[features.title]
kind = "text"
tokens = "pairs"
max_tokens = 9

[features.note]
kind = "text"
tokens = "characters"
normalise = ["nfkc", "lower", "digits"]
pool = "sum"

[features.made]
kind = "time"
part = "age"

[features.hour]
kind = "time"
of = "ts_ms"
part = "hour_of_week"
zone = "Asia/Kathmandu"

[features.shelf]
type = "integer"
default = "none"

[features.brand]
normalise = ["nfkc", "lower"]

[features.price]
kind = "numeric"
buckets = [0, 1, 10, 100]

[features.stars]
kind = "numeric"
piecewise = [0, 1, 3, 5]
default = 2.5

[features.picture]
kind = "vector"
width = 3
bounds = [-10, 10]

[features.weight]
kind = "numeric"
standardise = true

[features.year]
kind = "numeric"
quantiles = 2
bounds = [0, 100]

[features.quality]
kind = "component"
default = 0.5
transform = "log1p"

[features.taste]
kind = "component"
width = 2
bounds = [-1, 1]

[features.photo]
kind = "image"

[features.cover]
kind = "image"
unreadable = "missing"

[features.rate]
kind = "counter"
of = "user"

[features.clicked]
kind = "sequence"
by = "source"
of = "item"
max_values = 3
shares = "item"
pool = "attention"
against = "item"

[features.lately]
kind = "sequence"
by = "user"
of = "item"
ages = true
default = "never"

[model]
kind = "mlp"
dim = 4
categorical = ["source", "item", "user", "genres", "seen", "title", "note", "made", "hour",
  "shelf", "brand", "price", "genres*shelf", "user*title", "shelf*hour",
  "clicked", "lately", "lately*shelf"]
numeric = ["stars", "picture", "quality", "taste", "shown_at", "weight", "year", "rate"]
images = ["photo", "cover"]
"""
CONFIG = loads(DECLARED)
