"""Class Feature Pyramids: the kernels that a class prediction of a video network depends on."""
