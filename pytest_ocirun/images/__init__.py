"""Images: references, sources, safe unpacking and the content-addressed store."""
