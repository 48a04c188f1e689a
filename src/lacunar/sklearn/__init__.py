"""Estimators with the interface of scikit-learn: one model for every subset of modalities.

They work in ``cross_val_score``, ``GridSearchCV`` and ``Pipeline``. Nothing of scikit-learn is replaced: data go in as
a frame, an array, or a :class:`ModalityFrame`, which is a dictionary of arrays that can be indexed by row.
"""

from lacunar.sklearn.estimators import MultimodalClassifier, MultimodalRegressor
from lacunar.sklearn.inputs import ModalityFrame

__all__ = ["ModalityFrame", "MultimodalClassifier", "MultimodalRegressor"]
