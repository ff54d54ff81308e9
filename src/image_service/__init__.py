"""Image Processing Service: upload → queue → worker → thumbnails; nothing lost, nothing stuck."""

__version__ = "0.1.0"
