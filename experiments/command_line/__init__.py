"""The command `tracekit`: one module a subcommand, each importing what it needs."""
