"""The command line: one module a command, each parses, calls one library function and shows the result."""
