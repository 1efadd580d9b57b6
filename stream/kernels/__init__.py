"""How loops over columns are compiled, and where what was compiled is kept.

- `cache`: where compiled kernels are kept, and when they are compiled again
- `kernel`: how loops over columns are compiled
"""
