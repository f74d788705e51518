"""Video object segmentation: J and F of a network; result files and figures of Kowal et al.'s code."""
