"""Stores files in an object storage: S3, Google Cloud Storage or Azure.

The only package that uses obstore; it is imported only if an object storage is configured.
"""

from image_service.storage.objects.storage import ObjectStorage

__all__ = ["ObjectStorage"]
