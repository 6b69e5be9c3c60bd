"""Inside the container: collects and runs tests and answers the host. Stdlib and pytest only, Python 3.8+."""
