"""Video object segmentation: quality measures J and F, result files and figures as in Kowal et al.'s code."""
