"""What the papers report and claim, what is compared to test it, and the verdicts.

Knows runs and their records; draws nothing.
"""
