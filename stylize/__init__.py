"""Turn videos into stylized videos: the pairs that everything rests on come from them."""
