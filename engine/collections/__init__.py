"""Collections: which there are behind a credential, and what their records look like (contract 8)."""
