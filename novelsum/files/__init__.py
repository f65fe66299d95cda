"""What lies in files: the input as it came, the store that a run makes of it, and the folders a run works in.

Knows nothing of neighbours, densities or picks.
"""
