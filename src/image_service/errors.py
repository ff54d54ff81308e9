"""Everything that can go wrong, by what the caller can do about it.

::

    ServiceError                 internal-error; groups without a code of their own share it
    ├── UploadRejected           the sender must change the request
    │   ├── EmptyUpload              empty-upload
    │   ├── InvalidIdempotencyKey    invalid-idempotency-key
    │   ├── IdempotencyKeyReused     idempotency-key-reused
    │   ├── MalformedUpload          malformed-upload
    │   ├── MissingFile              missing-file
    │   ├── TooManyFiles             too-many-files
    │   ├── NotMultipart             not-multipart
    │   ├── UploadStalled            upload-stalled
    │   ├── UploadTooLarge           upload-too-large
    │   └── InvalidImage             the decoder's verdict on a file; another try would end the same
    │       ├── UnsupportedFormat        unsupported-format
    │       ├── CorruptImage             corrupt-image
    │       └── ImageTooLarge            image-too-large
    ├── NotFound                 not-found
    │   ├── ImageNotFound            image-not-found
    │   └── ThumbnailNotFound        thumbnail-not-found
    ├── InvalidRequest           invalid-request
    ├── MethodNotAllowed         method-not-allowed
    ├── RangeNotSatisfiable      range-not-satisfiable
    ├── StillProcessing          still-processing
    ├── OriginalRemoved          original-removed
    ├── Busy                     try again later; nothing is broken
    │   ├── TooManyUploads           too-many-uploads
    │   └── BacklogFull              backlog-full
    ├── Outage                   try again later; never the image's fault
    │   ├── DatabaseUnavailable      database-unavailable
    │   ├── QueueUnavailable         queue-unavailable
    │   ├── StorageUnavailable       storage-unavailable
    │   └── StorageFull              storage-full
    ├── DecoderFailure           counts against the image's attempts
    │   ├── DecoderCrashed           decoder-crashed
    │   ├── DecoderTimeout           decoder-timeout
    │   └── DecoderOutOfMemory       decoder-memory
    ├── AttemptsExhausted        attempts-exhausted
    ├── ObjectMissing            object-missing
    ├── FolderInUse              folder-in-use
    ├── ForeignStorage           foreign-storage
    └── StartError               start-failed

A class's docstring is the sentence a user reads when nothing more exact is known. The codes are stable: programs
may depend on them. Nothing here knows HTTP; ``api.problems`` gives each code its status.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Something went wrong inside the service. Try again, and report it with the request id if it stays."""

    code: ClassVar[str] = "internal-error"
    retry_after: ClassVar[int | None] = None
    """Seconds after which a client should try again; None where that does not help."""

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip()
        super().__init__(self.detail)


class UploadRejected(ServiceError):
    """The upload cannot be accepted as it is."""


class EmptyUpload(UploadRejected):
    """The uploaded file is empty. Send the image's bytes in the form field `file`."""

    code = "empty-upload"


class InvalidIdempotencyKey(UploadRejected):
    """The Idempotency-Key is empty, too long or not printable. Send 1 to 255 ASCII characters, such as a UUID."""

    code = "invalid-idempotency-key"


class IdempotencyKeyReused(UploadRejected):
    """Another file was uploaded under this Idempotency-Key. Send each new file with a new key."""

    code = "idempotency-key-reused"


class MalformedUpload(UploadRejected):
    """The multipart body is malformed or ends too early. Send it again with an ordinary multipart/form-data encoder."""

    code = "malformed-upload"


class MissingFile(UploadRejected):
    """The form has no field `file`. Send the image in it, for example: curl -F file=@photo.jpg."""

    code = "missing-file"


class TooManyFiles(UploadRejected):
    """The form has more than one field `file`. Send one image a request."""

    code = "too-many-files"


class NotMultipart(UploadRejected):
    """The request is not multipart/form-data. Send the image in the form field `file`: curl -F file=@photo.jpg."""

    code = "not-multipart"


class UploadStalled(UploadRejected):
    """No byte of the upload arrived for too long. Send it again over a steadier connection."""

    code = "upload-stalled"


class UploadTooLarge(UploadRejected):
    """The uploaded file is larger than this service accepts. Send a smaller one."""

    code = "upload-too-large"


class InvalidImage(UploadRejected):
    """The file is not an image that this service can process."""


class UnsupportedFormat(InvalidImage):
    """The file's content is not an image in a supported format. Send another; name and Content-Type do not matter."""

    code = "unsupported-format"


class CorruptImage(InvalidImage):
    """The file is damaged and cannot be decoded. Export the image again and upload the new file."""

    code = "corrupt-image"


class ImageTooLarge(InvalidImage):
    """The image has more pixels than this service accepts. Scale it down and upload it again."""

    code = "image-too-large"


class NotFound(ServiceError):
    """There is nothing at this address. The API's documentation is at /docs."""

    code = "not-found"


class ImageNotFound(NotFound):
    """There is no image with this id. Check the id; an image that was refused at upload has none."""

    code = "image-not-found"


class ThumbnailNotFound(NotFound):
    """This image has no such thumbnail (yet). Ask for the image's status; thumbnails exist once it is DONE."""

    code = "thumbnail-not-found"


class InvalidRequest(ServiceError):
    """The request is not valid. The API's documentation is at /docs."""

    code = "invalid-request"


class MethodNotAllowed(ServiceError):
    """This address does not take requests with this method. The API's documentation is at /docs."""

    code = "method-not-allowed"


class RangeNotSatisfiable(ServiceError):
    """The requested range lies outside the file. Ask for one within it, or for the whole file."""

    code = "range-not-satisfiable"


class StillProcessing(ServiceError):
    """The image is waiting or being processed already. Ask again once its status is DONE or ERROR."""

    code = "still-processing"


class OriginalRemoved(ServiceError):
    """The original was removed when the time ended for which originals are kept. Upload the image again."""

    code = "original-removed"


class Busy(ServiceError):
    """The service has enough to do at the moment. Try again in a few seconds."""


class TooManyUploads(Busy):
    """The service is taking in as many uploads as it can at the moment. Try again in a few seconds."""

    code = "too-many-uploads"
    retry_after = 2


class BacklogFull(Busy):
    """Too many images wait to be processed already. Try again later, when some are done."""

    code = "backlog-full"
    retry_after = 5


class Outage(ServiceError):
    """A part that the service depends on is away for the moment. Try again in a few seconds."""

    retry_after = 5


class DatabaseUnavailable(Outage):
    """The database cannot be reached. Nothing was changed that you were told of; try again in a few seconds."""

    code = "database-unavailable"


class QueueUnavailable(Outage):
    """The queue cannot be reached. Wait until it is back: accepted images are kept, and processed then."""

    code = "queue-unavailable"


class StorageUnavailable(Outage):
    """The image storage cannot be reached. Try again in a few seconds."""

    code = "storage-unavailable"


class StorageFull(Outage):
    """The image storage is full. Nothing was stored; try again once the operator has made room."""

    code = "storage-full"
    retry_after = 60


class DecoderFailure(ServiceError):
    """The decoder died on this image."""


class DecoderCrashed(DecoderFailure):
    """The image decoder crashed on this file. Export the image again and upload the new file."""

    code = "decoder-crashed"


class DecoderTimeout(DecoderFailure):
    """Decoding this file took longer than allowed. Export the image again, or scale it down, and upload it."""

    code = "decoder-timeout"


class DecoderOutOfMemory(DecoderFailure):
    """Decoding this file needs more memory than allowed. Scale the image down and upload it again."""

    code = "decoder-memory"


class AttemptsExhausted(ServiceError):
    """Processing this image was interrupted too often. Upload it again; report it with the image id if it stays."""

    code = "attempts-exhausted"


class ObjectMissing(ServiceError):
    """A stored file is missing. Report this with the image id to the service's operator."""

    code = "object-missing"


class FolderInUse(ServiceError):
    """Another process already uses this data folder. Stop it, or choose another folder."""

    code = "folder-in-use"


class ForeignStorage(ServiceError):
    """The files are another database's, so nothing is swept. Check DATABASE_URL, STORAGE_PATH and STORAGE_URL."""

    code = "foreign-storage"


class StartError(ServiceError):
    """The process cannot start. Look at its log, mend the cause and start it again."""

    code = "start-failed"
