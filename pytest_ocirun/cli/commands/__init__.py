"""One module per verb: ``VERB`` is what it takes, ``run`` does it, ``container_to_enter`` is what exec enters."""
