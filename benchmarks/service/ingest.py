"""The floor of receiving an image durably: what it costs a plain process, with nothing else around it.

For each image the process reads a socket, hashes (SHA-256) and writes what comes, syncs the file, renames it, and syncs
the folder. There is no HTTP, no framework, no thread and no check. The sender, which is not counted, is this process.
"""

import hashlib
import multiprocessing
import os
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

_CHUNK: Final = 256 * 1024
_STORED: Final = b"\n"
_WARM_UP: Final = 5


def measure_ingest(content: bytes, count: int, folder: Path) -> float:
    """Send the content ``count`` times.

    Args:
        content: An image.
        count: How often it is sent, one after the other on one connection.
        folder: An empty folder of the disk that the service uses; afterwards the files are in it.

    Returns:
        Seconds of the receiver's processor time for an image.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as receiver,
    ):
        spent = receiver.submit(_receive_all, listener.getsockname(), len(content), count, folder)
        connection, _ = listener.accept()
        with connection:
            for _ in range(_WARM_UP + count):
                connection.sendall(content)
                if connection.recv(len(_STORED)) != _STORED:
                    break  # its error is raised below
        return spent.result() / count


def _receive_all(address: tuple[str, int], size: int, count: int, folder: Path) -> float:
    """Returns the processor time that this process takes for all images but the first few."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    buffer = memoryview(bytearray(min(size, _CHUNK)))
    with socket.create_connection(address) as connection:
        began = 0.0
        for number in range(_WARM_UP + count):
            if number == _WARM_UP:
                began = time.process_time()
            _receive(connection, size, buffer, folder / str(number))
            os.fsync(directory)
            connection.sendall(_STORED)
    spent = time.process_time() - began
    os.close(directory)
    return spent


def _receive(connection: socket.socket, size: int, buffer: memoryview, path: Path) -> None:
    """Store an image under the path, followed by its digest."""
    arriving = f"{path}.part"
    file = os.open(arriving, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    digest, left = hashlib.sha256(), size
    while left:
        received = connection.recv_into(buffer[:left])
        if not received:
            raise ConnectionError("the sender has closed the connection")
        chunk = buffer[:received]
        digest.update(chunk)
        while chunk:
            chunk = chunk[os.write(file, chunk) :]
        left -= received
    os.fsync(file)
    os.close(file)
    os.rename(arriving, f"{path}-{digest.hexdigest()}")  # noqa: PTH104 — nothing but the call
