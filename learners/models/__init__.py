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
