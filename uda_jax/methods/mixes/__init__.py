"""Ways of mixing two domains for TUFL's stage two, by their names in a config.

Objects of the labelled source are pasted onto the target, whose labels are those of a
frozen network, that of stage one.  A mix is a row: `tufl(mix={"name": ..., option:
value ...})`.
"""

from uda_jax.methods.mixes.dual_soft import dual_soft
from uda_jax.methods.mixes.single import single

MIXES = {"single": single, "dual_soft": dual_soft}
