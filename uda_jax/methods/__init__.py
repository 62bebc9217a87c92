"""Every method by its name in a config."""

from uda_jax.methods.source_only import source_only
from uda_jax.methods.tufl import tufl

METHODS = {"source_only": source_only, "tufl": tufl}
