"""How loops over columns are compiled, and where what was compiled is kept.

- `arrays`: types of columns
- `cache`: where compiled kernels are kept, and when they are compiled again
- `hashes`: what hashes share: a mixer, an odd constant, a modulus
- `decorator`: how loops over columns are compiled
"""
