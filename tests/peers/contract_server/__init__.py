"""A strict in-memory Management API for tests, written from the contract alone."""
