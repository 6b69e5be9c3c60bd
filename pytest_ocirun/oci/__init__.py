"""OCI documents as typed values, decoded with ``$.path`` in every error."""
