"""Any objective as one compiled graph: captured, rewritten, built, compared with the eager objective.

`CompiledELBO(elbo)` in `compiled_elbo.py` is the door; the other files are the steps behind it, in the order in which a
graph is made: `capture`, `rewrites`, `inductor`, `cuda_graph`, `agreement`.
"""
