"""One thread per test process: the tests are small, and several processes share the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LACUNAR_PROGRESS", "none")

import matplotlib
import torch

torch.set_num_threads(1)
matplotlib.use("agg")
