"""The density factor of every candidate: by exact search, by search of near cells, as given, or kept in a state.

Knows nothing of selections. ``neighbors`` and ``cells`` are NumPy alone.
"""
