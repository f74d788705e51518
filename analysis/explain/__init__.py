"""Class Feature Pyramids: which kernels made one prediction (task ``saliency``)."""
