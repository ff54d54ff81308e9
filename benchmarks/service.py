"""How much of the renderer's speed is left once uploading, storing, recording and queueing are added.

    make bench                            or: python benchmarks/service.py --images 300 --clients 8

Both sides of the ratio are measured in this run, on the same machine, with the same pictures and as many decoders:

- ceiling: the bare renderer in warm processes, one picture after the other, nothing stored durably;
- service: `image-service standalone` with its clients, from the first byte of the first upload to the last DONE.
"""

import argparse
import asyncio
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image, ImageFilter

from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.pool import RenderPool

PROGRAM = Path(sys.executable).with_name("image-service")
SIZES = {"816x612": (816, 612), "12 MP": (4000, 3000)}


def picture(width: int, height: int) -> bytes:
    """A JPEG with the statistics of a photograph: detail at every scale, the less the finer (1/f noise)."""
    random = np.random.default_rng(7)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    falloff = 1 / np.maximum(np.hypot(rows, columns), 1 / max(width, height))
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(random.standard_normal((height, width))) * falloff
        plane = np.fft.irfft2(spectrum, s=(height, width))
        planes.append(np.clip(128 + 48 * plane / plane.std(), 0, 255).astype(np.uint8))
    data = io.BytesIO()
    Image.fromarray(np.dstack(planes)).filter(ImageFilter.GaussianBlur(0.7)).save(data, "JPEG", quality=85)
    return data.getvalue()


async def ceiling(content: bytes, count: int, slots: int) -> float:
    """Images a second that the renderer makes when it does nothing else."""
    pool = RenderPool(slots)
    turns = asyncio.Semaphore(slots)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.write_bytes(content)

        async def render(number: int) -> None:
            out = Path(folder) / str(number)
            out.mkdir()
            async with turns:
                await pool.render(source, DEFAULT_RECIPE, out)

        try:
            await asyncio.gather(*(render(number) for number in range(slots)))  # warm
            began = time.perf_counter()
            await asyncio.gather(*(render(slots + number) for number in range(count)))
            return count / (time.perf_counter() - began)
        finally:
            await pool.close()


@asynccontextmanager
async def standalone(slots: int) -> AsyncIterator[str]:
    """A service of its own; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(PROGRAM), "standalone", "--port", "0", "--data", folder]
        env = {**os.environ, "DECODE_SLOTS": str(slots), "LOG_LEVEL": "WARNING"}
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=env)
        assert process.stdout
        try:
            while found := (await process.stdout.readline()).decode():
                if match := re.search(r"Image Processing Service on (\S+)", found):
                    yield match[1]
                    return
            sys.exit("the service did not start")
        finally:
            process.terminate()
            await process.communicate()


async def service(content: bytes, count: int, clients: int, slots: int) -> tuple[float, list[float]]:
    """Images a second from the first upload to the last DONE, and the seconds that each upload took to its 202."""
    turns = asyncio.Semaphore(clients)
    answers: list[float] = []
    async with standalone(slots) as url, httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:

        async def upload() -> str:
            async with turns:
                began = time.perf_counter()
                answer = await http.post("/images", files={"file": content})
                answers.append(time.perf_counter() - began)
                return str(answer.raise_for_status().json()["id"])

        async def until_done(image_id: str) -> None:
            while (image := (await http.get(f"/images/{image_id}")).json())["status"] != "DONE":
                if image["status"] == "ERROR":
                    sys.exit(f"an image ended in ERROR: {image}")
                await asyncio.sleep(0.05)

        warm = await asyncio.gather(*(upload() for _ in range(slots)))
        await asyncio.gather(*(until_done(image_id) for image_id in warm))
        answers.clear()
        began = time.perf_counter()
        ids = await asyncio.gather(*(upload() for _ in range(count)))
        for image_id in ids:
            await until_done(image_id)
        return count / (time.perf_counter() - began), answers


async def main() -> None:
    """Measure, and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=200, help="uploads of each size (default 200)")
    options.add_argument("--clients", type=int, default=8, help="uploads at once (default 8)")
    options.add_argument("--slots", type=int, default=os.cpu_count() or 1, help="decoders (default: processors)")
    options.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median counts (default 3)")
    given = options.parse_args()
    print(f"{given.images} images, {given.clients} clients, {given.slots} decoders, median of {given.rounds} rounds\n")
    print(f"{'picture':>8} {'KB':>6} {'ceiling/s':>10} {'service/s':>10} {'ratio':>6} {'202 p50 ms':>11} {'p95 ms':>7}")
    for name, size in SIZES.items():
        content = picture(*size)
        ceilings, rates, answers = [], [], []
        for _ in range(given.rounds):  # in turn, so that a machine whose speed drifts is fair to both
            ceilings.append(await ceiling(content, given.images, given.slots))
            rate, times = await service(content, given.images, given.clients, given.slots)
            rates.append(rate)
            answers += times
        ratio = statistics.median(rate / most for rate, most in zip(rates, ceilings, strict=True))
        percentiles = statistics.quantiles(answers, n=20)
        print(
            f"{name:>8} {len(content) / 1000:>6.0f} {statistics.median(ceilings):>10.1f} "
            f"{statistics.median(rates):>10.1f} {ratio:>6.2f} "
            f"{percentiles[9] * 1000:>11.1f} {percentiles[18] * 1000:>7.1f}"
        )


if __name__ == "__main__":
    asyncio.run(main())
