"""Decoder processes: a pool of them, the protocol between them and the pool, and the sandbox around each."""
