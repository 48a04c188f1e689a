"""Encoders: one backbone a file; each maps the rows of one modality ``(n, ...)`` to ``(n, C, *spatial)``.

Every encoder here accepts 0 rows (and then gives zero gradients) and 1 row, and in evaluation mode returns for a row
what it would return for it alone, whatever the padding.
"""

from __future__ import annotations

from lacunar.models.encoders.conv3d import Conv3dEncoder
from lacunar.models.encoders.convnet import ConvNet
from lacunar.models.encoders.lenet import LeNet
from lacunar.models.encoders.lstm import LSTM
from lacunar.models.encoders.mlp import MLP
from lacunar.models.encoders.sound import SoundNet
from lacunar.models.encoders.textcnn import TextCNN

__all__ = ["LSTM", "MLP", "Conv3dEncoder", "ConvNet", "LeNet", "SoundNet", "TextCNN"]
