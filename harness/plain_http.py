"""HTTP to servers on this machine."""

import ssl
from typing import Final

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""``verify`` of httpx's clients: by default each of them reads all authorities' certificates, which takes 30 ms."""
