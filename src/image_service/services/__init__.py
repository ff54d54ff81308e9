"""Use cases, each written against ports and repositories."""
