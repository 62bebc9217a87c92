"""Every method by its name in a config."""

from uda_jax.methods.advent import advent
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
}
