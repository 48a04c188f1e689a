"""Batches, data sets, presence tables, splits and readers. Nothing here knows a model."""

from __future__ import annotations

from lacunar.data.arrays import from_arrays
from lacunar.data.audio import mfcc
from lacunar.data.batch import Batch, collate
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.description import Description, load_description, load_splits
from lacunar.data.frame import from_frame
from lacunar.data.presence import PresenceTable, draw_presence, observed_presence
from lacunar.data.readers import get_reader, reader_names, register_reader
from lacunar.data.splits import Splits
from lacunar.data.splitting import make_folds, make_splits

__all__ = [
    "Batch",
    "Description",
    "MultimodalDataset",
    "PresenceTable",
    "Splits",
    "collate",
    "draw_presence",
    "from_arrays",
    "from_frame",
    "get_reader",
    "load_description",
    "load_splits",
    "make_folds",
    "make_splits",
    "mfcc",
    "observed_presence",
    "reader_names",
    "register_reader",
]
