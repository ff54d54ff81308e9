"""The errors of the service, grouped by what the caller can do about them.

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
    │   ├── OptionConflict           option-conflict
    │   │   └── RecipeConflict           recipe-conflict
    │   ├── OptionAfterFile          option-after-file
    │   │   └── RecipeAfterFile          recipe-after-file
    │   ├── UnknownWebhook           unknown-webhook
    │   ├── MetadataTooLarge         metadata-too-large
    │   ├── InvalidMetadata          invalid-metadata
    │   ├── UnsupportedEncoding      unsupported-encoding
    │   ├── UploadStalled            upload-stalled
    │   ├── UploadTooLarge           upload-too-large
    │   └── InvalidImage             the file cannot be processed as an image
    │       ├── UnsupportedFormat        unsupported-format
    │       ├── CorruptImage             corrupt-image
    │       └── ImageTooLarge            image-too-large
    ├── NotFound                 not-found
    │   ├── ImageNotFound            image-not-found
    │   ├── ThumbnailNotFound        thumbnail-not-found
    │   ├── WebhookNotFound          webhook-not-found
    │   └── DeliveryNotFound         delivery-not-found
    ├── HostNotAllowed           host-not-allowed
    ├── OriginNotAllowed         origin-not-allowed
    ├── InvalidRequest           invalid-request
    ├── NotJson                  not-json
    ├── BodyTooLarge             body-too-large
    ├── BodyTimeout              body-timeout
    ├── UnknownRecipe            unknown-recipe
    ├── UrlNotAllowed            url-not-allowed
    ├── MalformedRequest         malformed-request
    ├── UrlTooLong               url-too-long
    ├── HeadTooLarge             head-too-large
    ├── HeadTimeout              head-timeout
    ├── MethodNotAllowed         method-not-allowed
    ├── PreconditionFailed       precondition-failed
    ├── RangeNotSatisfiable      range-not-satisfiable
    ├── StillProcessing          still-processing
    ├── OriginalRemoved          original-removed
    ├── EventsExpired            events-expired
    ├── TooManyWebhooks          too-many-webhooks
    ├── WebhookDisabled          webhook-disabled
    ├── Busy                     try again later; nothing is broken
    │   ├── TooManyConnections       too-many-connections
    │   ├── TooManyUploads           too-many-uploads
    │   ├── UploadDisplaced          upload-displaced
    │   ├── TooManyEventStreams      too-many-event-streams
    │   └── BacklogFull              backlog-full
    ├── Outage                   a dependency is unavailable: try again later; never counts against an image
    │   ├── DatabaseUnavailable      database-unavailable
    │   ├── QueueUnavailable         queue-unavailable
    │   ├── StorageUnavailable       storage-unavailable
    │   │   └── ObjectUnreadable         object-unreadable
    │   └── StorageFull              storage-full
    ├── DecoderFailure           counts against the image's attempts
    │   ├── DecoderCrashed           decoder-crashed
    │   ├── DecoderTimeout           decoder-timeout
    │   └── DecoderOutOfMemory       decoder-memory
    ├── AttemptsExhausted        attempts-exhausted
    ├── ObjectMissing            object-missing
    ├── ObjectChanged            object-changed
    ├── FolderInUse              folder-in-use
    ├── ForeignStorage           foreign-storage
    └── StartError               start-failed

A class's docstring is its default message, which users read. The codes are stable: programs may depend on them.
Nothing here depends on HTTP; ``api.problems`` maps each code to its status.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Something went wrong inside the service. Try again, and report it with the request id if it persists."""

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
    """Another file or recipe was uploaded under this Idempotency-Key. Send each new file with a new key."""

    code = "idempotency-key-reused"


class MalformedUpload(UploadRejected):
    """The multipart body is malformed or ends too early. Send it again with an ordinary multipart/form-data encoder."""

    code = "malformed-upload"


class MissingFile(UploadRejected):
    """The form has no field `file`. Send the image in it, for example: curl -F file=@photo.jpg."""

    code = "missing-file"


class TooManyFiles(UploadRejected):
    """The form has more than one field `file`. Send one image per request."""

    code = "too-many-files"


class NotMultipart(UploadRejected):
    """The request is not multipart/form-data. Send the image in the form field `file`: curl -F file=@photo.jpg."""

    code = "not-multipart"


class OptionConflict(UploadRejected):
    """The request gives an option of the upload twice, and not the same. Send it once, in the query or in the form."""

    code = "option-conflict"


class RecipeConflict(OptionConflict):
    """The request names two recipes. Send one, either in the query or in the form field `recipe`."""

    code = "recipe-conflict"


class OptionAfterFile(UploadRejected):
    """A form field with an option of the upload comes after the file. Send it before the file, or in the query."""

    code = "option-after-file"


class RecipeAfterFile(OptionAfterFile):
    """The form field `recipe` comes after the file. Send it before the file, or in the query: ?recipe=NAME."""

    code = "recipe-after-file"


class UnknownWebhook(UploadRejected):
    """There is no webhook endpoint with this id. Send the `id` of one that GET /webhooks lists, or none."""

    code = "unknown-webhook"


class MetadataTooLarge(UploadRejected):
    """The upload's metadata has more than 1,024 bytes in UTF-8. Send less, such as the id of a record of your own."""

    code = "metadata-too-large"


class InvalidMetadata(UploadRejected):
    """The upload's metadata is no text in UTF-8, or has a NUL character. Send text, such as JSON."""

    code = "invalid-metadata"


class UnsupportedEncoding(UploadRejected):
    """The request's body is compressed, as its Content-Encoding says. Send it uncompressed."""

    code = "unsupported-encoding"


class UploadStalled(UploadRejected):
    """The upload arrived too slowly, or stopped. Send it again over a faster or more stable connection."""

    code = "upload-stalled"


class UploadTooLarge(UploadRejected):
    """The uploaded file is larger than this service accepts. Send a smaller one."""

    code = "upload-too-large"


class InvalidImage(UploadRejected):
    """The file cannot be processed as an image. Export it again, or send another file."""


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
    """There is no image with this id. Check the id; an upload that was refused has none."""

    code = "image-not-found"


class ThumbnailNotFound(NotFound):
    """This image has no such thumbnail (yet). Check the image's status; thumbnails exist once it is DONE."""

    code = "thumbnail-not-found"


class WebhookNotFound(NotFound):
    """There is no webhook endpoint with this id. Look at those that GET /webhooks lists."""

    code = "webhook-not-found"


class DeliveryNotFound(NotFound):
    """This webhook endpoint has no such delivery (any more). Look at those that GET /webhooks/ID/deliveries lists."""

    code = "delivery-not-found"


class HostNotAllowed(ServiceError):
    """This host name is not known to the service. Send requests to its IP address, or have ALLOWED_HOSTS name it."""

    code = "host-not-allowed"


class OriginNotAllowed(ServiceError):
    """Another site's page may change nothing. Send it from the service's own, or have ALLOWED_ORIGINS name it."""

    code = "origin-not-allowed"


class InvalidRequest(ServiceError):
    """The request is not valid. The API's documentation is at /docs."""

    code = "invalid-request"


class NotJson(ServiceError):
    """The request's body is not JSON, as its Content-Type says. Send a JSON object as application/json."""

    code = "not-json"


class BodyTooLarge(ServiceError):
    """The request's body is larger than 16 KB. Send only the fields that the documentation at /docs names."""

    code = "body-too-large"


class BodyTimeout(ServiceError):
    """The request's body did not arrive in time. Send the request again over a more stable connection."""

    code = "body-timeout"


class UnknownRecipe(ServiceError):
    """There is no recipe of this name. Send one of those that GET /recipes lists, or none for the default recipe."""

    code = "unknown-recipe"


class UrlNotAllowed(ServiceError):
    """Nothing is sent to this URL. Send one like https://hooks.example.org/images, which is a public address."""

    code = "url-not-allowed"


class MalformedRequest(ServiceError):
    """The request is not valid HTTP. Send it with an ordinary HTTP client, and report it if that does not help."""

    code = "malformed-request"


class UrlTooLong(ServiceError):
    """The URL is longer than 8 KB. Send one from the API's responses or its documentation at /docs."""

    code = "url-too-long"


class HeadTooLarge(ServiceError):
    """The request's headers are too large. Send at most 100 of them, 8 KB each and 32 KB in all; fewer cookies."""

    code = "head-too-large"


class HeadTimeout(ServiceError):
    """The request's headers did not arrive in time. Send the request again over a more stable connection."""

    code = "head-timeout"


class MethodNotAllowed(ServiceError):
    """This address does not support this method. The API's documentation is at /docs."""

    code = "method-not-allowed"


class PreconditionFailed(ServiceError):
    """The file is not the version that If-Match names. Ask for it again without If-Match."""

    code = "precondition-failed"


class RangeNotSatisfiable(ServiceError):
    """The requested range lies outside the file. Ask for a range within it, or for the whole file."""

    code = "range-not-satisfiable"


class StillProcessing(ServiceError):
    """The image is already waiting or being processed. Try again once its status is DONE or ERROR."""

    code = "still-processing"


class OriginalRemoved(ServiceError):
    """The original was removed because its retention period ended. Upload the image again."""

    code = "original-removed"


class EventsExpired(ServiceError):
    """Later events are missing: this one is too old, or unknown. Ask for your images' state, and begin without it."""

    code = "events-expired"


class TooManyWebhooks(ServiceError):
    """There are 100 webhook endpoints already. Look for one that can be deleted, or let one serve several receivers."""

    code = "too-many-webhooks"


class WebhookDisabled(ServiceError):
    """The webhook endpoint is disabled, and gets nothing. Send a PATCH with {"enabled": true} first."""

    code = "webhook-disabled"


class Busy(ServiceError):
    """The service is busy at the moment. Try again in a few seconds."""

    retry_after = 5


class TooManyConnections(Busy):
    """The service has as many connections as it can have at the moment. Try again in a few seconds."""

    code = "too-many-connections"
    retry_after = 5


class TooManyUploads(Busy):
    """The service is receiving as many uploads as it can at the moment. Try again in a few seconds."""

    code = "too-many-uploads"
    retry_after = 2


class UploadDisplaced(Busy):
    """The service is receiving as many uploads as it can, and this one was too slow. Try again in a few seconds."""

    code = "upload-displaced"
    retry_after = 5


class TooManyEventStreams(Busy):
    """The service has as many event streams as it can have at the moment. Try again later, or ask for JSON pages."""

    code = "too-many-event-streams"
    retry_after = 10


class BacklogFull(Busy):
    """Too many images are already waiting to be processed. Try again later."""

    code = "backlog-full"
    retry_after = 5


class Outage(ServiceError):
    """A part that the service depends on is unavailable at the moment. Try again in a few seconds."""

    retry_after = 5

    def __init__(self, detail: str | None = None, *, cause: str | None = None) -> None:
        super().__init__(detail)
        self.cause = cause
        """Why, in one line for operators: it may name addresses and paths, and clients never get it."""

    def __str__(self) -> str:
        """What operators read: the detail and the cause."""
        return f"{self.detail} Cause: {self.cause}" if self.cause else self.detail


class DatabaseUnavailable(Outage):
    """The database cannot be reached. An unconfirmed change may have been made; try again in a few seconds."""

    code = "database-unavailable"

    def __init__(self, detail: str | None = None, *, cause: str | None = None, unchanged: bool = False) -> None:
        super().__init__(detail, cause=cause)
        self.unchanged = unchanged
        """Whether it is certain that nothing was changed."""


class QueueUnavailable(Outage):
    """The queue cannot be reached. Wait until it is available again: accepted images are kept, and processed then."""

    code = "queue-unavailable"


class StorageUnavailable(Outage):
    """The image storage cannot be reached. Try again in a few seconds."""

    code = "storage-unavailable"


class ObjectUnreadable(StorageUnavailable):
    """A stored file cannot be read. Report this with the image id to the service's operator."""

    code = "object-unreadable"


class StorageFull(Outage):
    """The image storage is full. Nothing was stored; try again later."""

    code = "storage-full"
    retry_after = 60


class DecoderFailure(ServiceError):
    """The decoder process ended while decoding this image. Export the image again and upload the new file."""


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
    """Processing this image was interrupted too often. Upload it again; report it with the image id if it persists."""

    code = "attempts-exhausted"


class ObjectMissing(ServiceError):
    """A stored file is missing. Report this with the image id to the service's operator."""

    code = "object-missing"


class ObjectChanged(ServiceError):
    """A stored file is not what was uploaded. Upload it again, and report the image id to the service's operator."""

    code = "object-changed"


class FolderInUse(ServiceError):
    """Another process already uses this data folder. Stop it, or choose another folder."""

    code = "folder-in-use"


class ForeignStorage(ServiceError):
    """The storage holds another database's files. Check DATABASE_URL, STORAGE_PATH and STORAGE_URL."""

    code = "foreign-storage"


class StartError(ServiceError):
    """The process cannot start. Check its log, fix the cause and start it again."""

    code = "start-failed"
