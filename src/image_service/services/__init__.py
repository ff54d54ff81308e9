"""The use cases, each one transaction script over ports and repositories."""
