"""The glue: image and request to bundle to running container, and clean-up."""
