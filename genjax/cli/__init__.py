"""The console command, one module a subcommand; nothing heavy is imported before it is needed."""
