"""Atlas of video networks whose trained weights come with Python packages (docs/atlas.md)."""
