"""Domain-adaptive semantic segmentation in JAX."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    # Late: `import uda_jax` alone must not import jax.
    if name == "load_model":
        from uda_jax.loaded_model import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
