"""Video object segmentation: J and F of a network; result files and figures of the original programs."""
