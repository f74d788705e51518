"""Video object segmentation: J and F, and the original's files, tables and figures."""
