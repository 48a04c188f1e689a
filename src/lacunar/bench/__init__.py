"""Comparisons on equal footing: the same splits, presence tables and seeds for every method."""
