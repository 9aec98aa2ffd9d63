"""A run is asked for, kept, resumed, recorded. Knows the loops and the disk; nothing of papers or pictures."""
