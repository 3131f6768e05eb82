"""The Management API as our own service: credentials, syncs that really run, streams and their consumers."""
