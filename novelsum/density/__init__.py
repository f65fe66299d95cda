"""The density factor of every candidate: by exact search, by search of near cells, as given, or kept in a state.

Knows nothing of selections. ``neighbors`` and ``cells`` are NumPy alone.
"""

from novelsum.called import can_be_called

can_be_called(__name__)
