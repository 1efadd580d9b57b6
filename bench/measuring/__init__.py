"""What every bench uses: the list of them, comparison, the machine, plots.

- `catalogue`: What benches there are, read from their modules' first words
- `compare`: Two sets of runs of one bench beside each other
- `machine`: What processes cost, and how busy the machine was meanwhile (Linux)
- `own_run`: A run of a bench's own: its folder, its options, and what it reads of the log
- `plotting`: The benches' pictures
"""
