"""Everything at once: all notebooks, how long they will take, their report."""
