"""The HTTP API: requests in, use cases called, answers out."""
