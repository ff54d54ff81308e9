"""The command line: what the program can be asked to do."""
