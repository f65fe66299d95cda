"""Other ways to select than NovelSelect, under the same rules: as a selection of their own, or beside another.

- ``random``: by lots that the seed draws from the ids; the chance of a candidate grows with its q^γ over its cost.
- ``farthest-first``: k-center greedy, always the greatest q^γ times the distance to the nearest sample selected.
- ``k-means``: Lloyd's algorithm with as many centroids as picks, weighted by q^γ; of each the nearest candidate.

What closes candidates to NovelSelect (:mod:`novelsum.selection.closings`) closes them to all of these, and samples
selected before count. Each depends on ids and vectors alone: not on blocks, partitions or the order of rows.
"""
