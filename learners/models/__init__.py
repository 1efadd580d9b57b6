"""Models and the features that they read.

- `counting_model`: coverage as a model
- `delayed_feedback`: what early labels do to a model, and how it is made good (docs/labels.md)
- `embeddings`: rows of a batch's distinct keys <-> what stands in each example
- `factorization`: factorization machine (Rendle 2010)
- `feature_groups`: what stands between a kind, which knows one table with one row a feature, and
  its features
- `feature_pairs`: dot products of every pair of an example's vectors, with their gradient
- `features`: from the columns of an impression to what a model reads
- `logistic`: logistic regression over hashed features
- `model`: A model
- `network`: A torch module as a kind of model
- `network_forward`: the built-in networks' forward pass for serving
- `pooling`: the row of a bag
- `record_columns`: whether a record of `examples` has the columns that a model reads, and as it
  reads them
- `scaling`: numbers that are read by what the stream has shown of them
- `text_keys`: from the values of a request, one behind another, to keys and numbers
- `torch_modules`: the network kinds, as torch modules
- `user_module`: A torch module of a user's own
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from learners.models import delayed_feedback
    from learners.models.counting_model import TABLE
    from learners.models.delayed_feedback import NONE, Correction
    from learners.models.embeddings import unique_keys
    from learners.models.features import Bag, Encoded, Encoder, Floats, Keys, Pictures, Places
    from learners.models.logistic import Logistic, probabilities
    from learners.models.model import (
        Model,
        ModuleFault,
        Scorer,
        clip,
        code_of,
        make_model,
        stated_correction,
    )
    from learners.models.network_forward import Forward, forward_of
    from learners.models.record_columns import wrong_column
    from learners.models.scaling import scaled
    from learners.models.text_keys import TextEncoder, TextShape, feature_key, hash_text
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NONE",
    "TABLE",
    "Bag",
    "Correction",
    "Encoded",
    "Encoder",
    "Floats",
    "Forward",
    "Keys",
    "Logistic",
    "Model",
    "ModuleFault",
    "Pictures",
    "Places",
    "Scorer",
    "TextEncoder",
    "TextShape",
    "clip",
    "code_of",
    "delayed_feedback",
    "feature_key",
    "forward_of",
    "hash_text",
    "make_model",
    "probabilities",
    "scaled",
    "stated_correction",
    "unique_keys",
    "wrong_column",
]
