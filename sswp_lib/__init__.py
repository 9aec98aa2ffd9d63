"""SSWP-NAS: self-supervised and weight-preserving neural architecture search (Li et al. 2022)."""

__version__ = "0.1.0"


def load(run: str):
    """Return the network of a finished training, a `torch.nn.Module` in evaluation mode: see `runs.models.load`."""
    from sswp_lib.runs import models  # here, so that importing the package stays light

    return models.load(run)
