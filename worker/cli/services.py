"""The processes of the worker, each in the foreground: for an orchestrator, or for `gangway up`."""
