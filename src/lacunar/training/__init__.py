"""Training of any objective on PyTorch Lightning: ``fit``, its run folder, and single-modality references.

The public names are ``lacunar.fit``, ``lacunar.Run`` and ``lacunar.load_run``; Lightning takes seconds to import, so
nothing is imported here.
"""
