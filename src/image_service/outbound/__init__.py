"""Sends to addresses that users chose, and to no other: the guard against server-side request forgery (SSRF)."""
