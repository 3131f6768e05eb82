"""The connect flow: an OAuth2 server in front of the providers (contract 6.3)."""
