"""What a person reads of a run: the selected rows, the lines at its end, and the page about it."""
