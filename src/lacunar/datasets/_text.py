"""Vectors from transcripts, made from the samples at hand and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from lacunar.data.column_values import column_from_values
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import DataError

__all__ = ["text_vectors", "words_of"]


def words_of(data: MultimodalDataset, name: str) -> list[str | None]:
    """The transcripts of a modality of UTF-8 bytes; None where absent.

    Raises:
        DataError: a modality of another kind.
    """
    if data.kinds.get(name) != "tokens":
        raise DataError(f"Modality {name!r}: expected text, got {data.kinds.get(name, 'nothing of this name')}.")
    column, has = data.columns[name], data.present[:, data.names.index(name)].tolist()
    words: list[str | None] = []
    for row, there in enumerate(has):
        values = column.take(torch.tensor([row]))[0][0] if there else None
        words.append(None if values is None else bytes(values.tolist()).decode("utf-8", errors="replace"))
    return words


def text_vectors(
    data: Splits, name: str = "text", rows: Sequence[int] | np.ndarray | None = None, size: int = 50, seed: int = 0
) -> Splits:
    """The same parts with a text modality as vectors: TF-IDF of words and pairs of words, then truncated SVD.

    Vocabulary, weights and axes come from the transcripts of the given train samples; no label is read.

    Args:
        data: parts with transcripts.
        name: the modality.
        rows: positions in the train part to learn from; all when left out.
        size: length of the vectors, less where there are not as many samples.
        seed: of the SVD.
    """
    words = {part: words_of(samples, name) for part, samples in data.parts.items()}
    source = words["train"] if rows is None else [words["train"][row] for row in rows]
    known = [text.lower() for text in source if text is not None]
    tfidf = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit(known)
    table = tfidf.transform(known)
    svd = TruncatedSVD(min(size, min(table.shape) - 1), random_state=seed).fit(table)
    parts = {}
    for part, samples in data.parts.items():
        vectors = svd.transform(tfidf.transform([(text or "").lower() for text in words[part]]))
        has = np.array([text is not None for text in words[part]])
        columns = dict(samples.columns)
        columns[name] = column_from_values(name, vectors, has, "vector")
        parts[part] = samples._copy(columns=columns)
    result = Splits(parts["train"], parts["val"], parts.get("test"))
    # The cells are those of the samples that are left; how they came about is known to the data that were given.
    for fact in ("law", "seed", "asked", "resolve_empty", "realised", "empty"):
        setattr(result.presence, fact, getattr(data.presence, fact))
    return result
