"""Servers, clients and fakes that the tests and the benchmarks share."""
