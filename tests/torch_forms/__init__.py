"""PyTorch forms of the networks: what uda_jax is compared with.

Written from the published descriptions; parameters carry the originals' names, so that
the weights that `Model.torch` names load with strict=True.  They need PyTorch (the
extra "bench"); nothing in uda_jax does.
"""
