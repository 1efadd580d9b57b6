"""Settings and fixtures of all tests."""

from hypothesis import settings

# Kernels compile on first use and tests share small machines: an example is never failed for its time.
settings.register_profile("everspun", deadline=None)
settings.load_profile("everspun")
