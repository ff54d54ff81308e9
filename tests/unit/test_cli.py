"""The command line: help, errors, rendering and health checks."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from harness.images import encoded, gradient
from harness.logs import logging_kept
from harness.processes import free_port
from image_service import __version__
from image_service.cli import app
from image_service.config import Settings

COMMANDS = [
    *("standalone", "api", "worker", "migrate", "healthcheck", "render", "recipes"),
    *("check", "requeue", "backfill", "dead-letters", "webhooks"),
]


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    with logging_kept():
        yield


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env=environment, terminal_width=120)


def plain(text: str) -> str:
    """Removes colours, frames and line breaks."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text))


@pytest.mark.parametrize("arguments", [("--help",), ("-h",)])
def test_help_names_every_command_and_the_settings_file(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    output = plain(result.output)
    assert result.exit_code == 0
    assert "Accepts images over HTTP" in output
    assert ".env.example" in output
    assert all(f" {command} " in output for command in COMMANDS)


def test_without_a_command_help_is_shown() -> None:
    assert "Usage: " in run().output


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("standalone", ["--host", "--port", "--data", "127.0.0.1", "8000", "Ctrl-C", "MAX_FILE_SIZE"]),
        ("api", ["--host", "--port", "--migrate", "DATABASE_URL", "STORAGE_PATH", "RABBITMQ_URL"]),
        ("worker", ["STORAGE_PATH", "SIGTERM"]),
        ("migrate", ["tables"]),
        ("render", ["--out", "--recipe", "--recipes-file", "thumbnails", "trust", "MAX_PIXELS", "RECIPES_FILE"]),
        ("recipes", ["check", "list", "show", "docs/recipes.md"]),
        ("healthcheck", ["api", "worker"]),
        ("check", ["--repair", "--quick", "--data", "Exits with 0", "3"]),
        ("requeue", ["--failed", "--code", "--data", "in any state"]),
        ("backfill", ["--window", "--data", "recipe", "Ctrl-C"]),
        ("dead-letters", ["list", "retry"]),
        ("webhooks", ["add", "list", "show", "change", "rotate", "disable", "enable", "remove", "test", "deliveries"]),
    ],
)
def test_every_command_has_help(command: str, words: list[str]) -> None:
    result = run(command, "--help")
    output = plain(result.output)
    assert result.exit_code == 0
    assert [word for word in words if word not in output] == []


def test_version_is_shown() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"image-service {__version__}\n")


@pytest.mark.parametrize("arguments", [("nonsense",), ("healthcheck", "database"), ("api", "--port", "x")])
def test_unknown_arguments_are_usage_errors(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in plain(result.stderr)


@pytest.mark.parametrize(
    ("arguments", "environment", "wrong"),
    [
        (("standalone",), {"MAX_FILE_SIZE": "big"}, "MAX_FILE_SIZE=big"),
        (("standalone", "--port", "70000"), {}, "API_PORT=70000"),
        (("api",), {"LOG_LEVEL": "loud"}, "LOG_LEVEL=LOUD"),
        (("api",), {"PUBLIC_URL": "img.example.org"}, "PUBLIC_URL=img.example.org"),
        (("worker",), {"DECODE_SLOTS": "-1"}, "DECODE_SLOTS=-1"),
        (("migrate",), {"DATABASE_URL": "mysql://x:secret@y/z"}, "DATABASE_URL"),
        (("render", "photo.jpg"), {"MAX_PIXELS": "0"}, "MAX_PIXELS=0"),
        (("healthcheck", "worker"), {"API_PORT": "-1"}, "API_PORT=-1"),
    ],
)
def test_invalid_setting_is_reported_by_name(
    arguments: tuple[str, ...], environment: dict[str, str], wrong: str, tmp_path: Path
) -> None:
    options = ("--data", str(tmp_path / "data")) if "standalone" in arguments else ()
    result = run(*arguments, *options, **environment)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"image-service: {wrong} is not usable: ")
    assert line.endswith(".")
    assert "secret" not in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("host", "reason"),
    [("no host at all", "Name or service not known"), ("192.0.2.1", "Cannot assign requested address")],
)
def test_unusable_listen_address_is_reported(host: str, reason: str) -> None:
    result = run("api", "--host", host, "--port", "8000")
    assert result.exit_code == 1
    assert f"image-service: Cannot listen on {host} port 8000: {reason}." in result.stderr
    assert "Traceback" not in result.output


def test_failed_migration_is_reported() -> None:
    result = run("migrate", DATABASE_URL=f"postgresql+asyncpg://unknown@127.0.0.1:{free_port()}/nothing")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("image-service: The database cannot be migrated: ")
    assert line.endswith("Check that it runs and that DATABASE_URL is right.")


def test_render_reports_outputs_and_timings(tmp_path: Path) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "new" / "folder"
    photo.write_bytes(encoded(Image.new("RGB", (400, 300), "#ff0000"), "PNG"))
    result = run("render", str(photo), "--out", str(out))
    assert result.exit_code == 0, result.output
    assert f"{photo}: 400x300" in result.stdout
    assert {path.name for path in out.iterdir()} == {f"photo-{box}.jpg" for box in ("100x100", "300x300", "1200x1200")}
    for box, size in (("100x100", (100, 75)), ("300x300", (300, 225)), ("1200x1200", (400, 300))):
        path = out / f"photo-{box}.jpg"
        with Image.open(path) as image:
            assert image.size == size
        said = rf"{box} +{size[0]}x{size[1]} +{path.stat().st_size:,} bytes +image/jpeg +{re.escape(str(path))}\n"
        assert re.search(said, result.stdout)
    assert "dominant colour #ff0000" in result.stdout
    assert "metadata removed: nothing" in result.stdout
    for step in ("inspect", "decode", "shrink", "placeholder", "encode 100x100", "all"):
        assert re.search(rf"^  {step} +\d+\.\d\d ms$", result.stdout, re.MULTILINE)


def test_render_replaces_only_its_own_outputs(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(Image.new("RGBA", (40, 30)), "PNG"))
    (tmp_path / "100x100").write_text("mine")
    for _ in range(2):
        assert run("render", str(photo), "--out", str(tmp_path)).exit_code == 0
    made = {f"photo-{box}.webp" for box in ("100x100", "300x300", "1200x1200")}
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "100x100"} | made
    assert (tmp_path / "100x100").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "environment", "said"),
    [
        (b"text", {}, "unsupported-format: The file's content is no image"),
        (encoded(gradient(300, 200), "PNG")[:400], {}, "corrupt-image: The file is damaged"),
        (encoded(gradient(300, 200), "PNG"), {"MAX_PIXELS": "100"}, "image-too-large: The image is 300x200 pixels"),
        (encoded(gradient(300, 200), "PNG"), {"ENABLED_FORMATS": "gif"}, "unsupported-format: The file's content is a"),
        (None, {}, "storage-unavailable: "),
    ],
    ids=["no image", "damaged", "too large", "not enabled", "missing"],
)
def test_render_failure_is_reported_in_one_sentence(
    content: bytes | None, environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    photo = tmp_path / "photo"
    if content is not None:
        photo.write_bytes(content)
    result = run("render", str(photo), "--out", str(tmp_path / "out"), **environment)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"image-service: {said}")
    assert line.endswith(".")
    assert list((tmp_path / "out").iterdir()) == []


def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(encoded(gradient(60, 40), "PNG"))
    result = run("render", str(tmp_path / "photo"), "--out", str(tmp_path / "photo" / "out"))
    assert result.exit_code == 1
    assert result.stderr == f"image-service: storage-unavailable: {tmp_path / 'photo' / 'out'}: Not a directory.\n"


def test_render_out_of_memory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("image_service.imaging.render.pipeline.render", exhausted)
    result = run("render", str(tmp_path / "photo"), "--out", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith("image-service: decoder-memory: ")


def test_render_command_imports_no_server_libraries(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(gradient(60, 40), "PNG"))
    script = (
        "import sys; from image_service.cli import app; app(sys.argv[1:], standalone_mode=False);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(  # noqa: S603  (our own program)
        [sys.executable, "-c", script, "render", str(photo)],
        cwd=tmp_path,
        env={name: os.environ[name] for name in ("PATH", "PYTHONPATH")},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert (tmp_path / "thumbnails" / "photo-100x100.jpg").exists()
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"sqlalchemy", "fastapi", "uvicorn", "aio_pika", "alembic"} & loaded == set()


def test_worker_with_a_recent_liveness_file_is_healthy(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    alive.touch()
    result = run("healthcheck", "worker", LIVENESS_FILE=str(alive))
    assert (result.exit_code, result.stdout) == (0, "healthy\n")


@pytest.mark.parametrize("age", [None, 60])
def test_worker_without_a_recent_liveness_file_is_unhealthy(tmp_path: Path, age: float | None) -> None:
    alive = tmp_path / "alive"
    if age is not None:
        alive.touch()
        then = alive.stat().st_mtime - age
        os.utime(alive, (then, then))
    result = run("healthcheck", "worker", LIVENESS_FILE=str(alive))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"unhealthy: {alive} was not updated lately\n"


@contextmanager
def api(status: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Runs a server that answers ``GET /health/ready`` with the status; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("listens_on", "api_host"),
    [("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("::1", "::"), ("::1", "::1")],  # noqa: S104  (nothing listens there)
)
def test_ready_api_is_healthy(listens_on: str, api_host: str) -> None:
    with api(200, listens_on) as port:
        result = run("healthcheck", "api", API_HOST=api_host, API_PORT=str(port))
    assert (result.exit_code, result.stdout) == (0, "healthy\n")


def test_health_check_ignores_proxies() -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    with api(200) as port:
        result = run("healthcheck", "api", API_PORT=str(port), http_proxy=proxy, HTTP_PROXY=proxy, no_proxy="")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("status", [503, 500, 404])
def test_api_that_is_not_ready_is_unhealthy(status: int) -> None:
    with api(status) as port:
        result = run("healthcheck", "api", API_PORT=str(port))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"unhealthy: http://127.0.0.1:{port}/health/ready does not answer 200\n"


def test_stopped_api_is_unhealthy() -> None:
    result = run("healthcheck", "api", API_PORT=str(free_port()))
    assert result.exit_code == 1
    assert "does not answer 200" in result.stderr


def test_other_protocol_is_unhealthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def send_greeting() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 smtp.example ESMTP\r\n")

        thread = threading.Thread(target=send_greeting)
        thread.start()
        result = run("healthcheck", "api", API_PORT=str(listener.getsockname()[1]))
        thread.join()
    assert result.exit_code == 1
    assert "does not answer 200" in result.stderr


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("worker", {"fastapi", "starlette", "uvicorn", "alembic"}),
        ("api", {"alembic", "PIL"}),
        ("migrations", {"fastapi"}),
    ],
)
def test_process_loads_no_other_s_libraries(module: str, spared: set[str]) -> None:
    script = f"import sys, image_service.program.{module}; print(*sorted({{n.partition('.')[0] for n in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603  (a fixed script)
    assert "image_service" in loaded.stdout.split()
    assert not spared & set(loaded.stdout.split())


def test_health_check_imports_no_service_modules(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    alive.touch()
    script = (
        "import sys; from image_service.cli import app; app(['healthcheck', 'worker'], standalone_mode=False);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    checked = subprocess.run(  # noqa: S603  (our own program)
        [sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ["PYTHONPATH"], "LIVENESS_FILE": str(alive)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    verdict, loaded = checked.stdout.splitlines()
    assert verdict == "healthy"
    costly = {"sqlalchemy", "fastapi", "starlette", "PIL", "uvicorn", "aio_pika", "alembic", "structlog", "asyncpg"}
    assert costly & set(loaded.split()) == set()
