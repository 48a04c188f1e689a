"""Batches, data sets, presence tables, splits and readers. Nothing here knows a model."""
