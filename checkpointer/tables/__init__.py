"""The tables of a served model in memory.

- `cells`: kernels over the cells and rows of a table
- `model_tables`: all tables and dense arrays of a served model, at one cut after another
- `versioned_table`: one table of a served model, at one cut after another
"""
