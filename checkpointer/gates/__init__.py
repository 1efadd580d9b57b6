"""Gates: what a checkpoint must pass before replicas may serve it (X2).

- `evaluations`: evaluation sums by cut
- `gates`: what a checkpoint must pass before replicas may serve it
- `sandbox`: starts the clean process of the gates once, and asks it about one checkpoint after
  another
- `sandbox_main`: the clean process of the gates
"""
