"""The pytest plugin: options, collection, run loop, reports and fixtures on the host."""
