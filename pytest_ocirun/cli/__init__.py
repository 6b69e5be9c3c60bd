"""The command line: argv to verbs, one module per verb."""
