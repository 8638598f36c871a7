"""The command line: one small file per group, everything heavy imported inside a command."""
