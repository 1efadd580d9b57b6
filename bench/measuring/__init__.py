"""What every bench uses: the list of them, comparison, the machine, plots.

- `catalogue`: What benches there are, read from their modules' first words
- `compare`: Two sets of runs of one bench beside each other
- `machine`: What processes cost, and how busy the machine was meanwhile (Linux)
- `plotting`: The benches' pictures
"""
