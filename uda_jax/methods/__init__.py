"""Every method by its name in a config."""

from ml_collections import ConfigDict

from uda_jax.methods.advent import advent
from uda_jax.methods.daformer import daformer
from uda_jax.methods.ebda import ebda
from uda_jax.methods.maxsquare import maxsquare
from uda_jax.methods.minent import minent
from uda_jax.methods.source_only import source_only
from uda_jax.methods.ss_ada import ss_ada
from uda_jax.methods.tufl import tufl

METHODS = {
    "source_only": source_only,
    "minent": minent,
    "maxsquare": maxsquare,
    "advent": advent,
    "tufl": tufl,
    "ss_ada": ss_ada,
    "daformer": daformer,
    "ebda": ebda,
}


def keeps_network(config: ConfigDict) -> str:
    """The option for which a run's method keeps a network that never changes, or ""."""
    if config.method.get("mix"):
        return "mix"  # it labels the target
    factory = METHODS.get(config.method.get("name"))  # None is said elsewhere
    own = getattr(factory, "__kwdefaults__", None) or {}
    weight = {**own, **config.method}.get("feature_weight", 0)
    return "feature_weight" if weight else ""  # features stay near its own


def looks_at_target(config: ConfigDict) -> bool:
    """Whether the run's method looks at target images without labels."""
    if config.method.name == "ss_ada":  # with those that there are, or without any
        everything = config.method.get("learns_from", "all") == "all"
        return everything and bool(config.target.reader)
    return config.method.name != "source_only"
