"""How it is used: runs, tables, claims, plots, widgets, the reproduction of all notebooks."""
