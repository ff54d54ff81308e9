"""The JSON documents that clients, receivers of events and other services get. Fields may be added, never changed."""
