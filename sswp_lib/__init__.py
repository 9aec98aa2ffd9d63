"""SSWP-NAS: self-supervised and weight-preserving neural architecture search (Li et al. 2022)."""

__version__ = "0.1.0"
