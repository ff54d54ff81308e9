"""Prints how PostgreSQL runs each query of the program on a table of a million images.

    make plans                            or: python -m benchmarks.operations.plans --images 100000 --full claim

The server logs the plans (auto_explain) while the program's own queries run on a connection that has run them before.
Exits with 1 if a query does not use the intended index, or reads all images.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

from sqlalchemy import text

from harness.plans import QUERIES, Plan, explainer, fill, superuser
from harness.servers import PostgresServer, new_folder
from image_service.database.migrations import upgrade


def steps(plans: list[Plan]) -> str:
    """Returns a summary of the plans: each operation with its table or index."""
    found = Counter(_step(node) for plan in plans for node in plan.nodes if _step(node))
    return "; ".join(step if times == 1 else f"{times} x {step}" for step, times in found.items())


def _step(node: dict[str, Any]) -> str:
    kind = str(node["Node Type"]).removesuffix(" Scan").lower()
    match node:
        case {"Index Name": index}:
            return f"{kind} {index}"
        case {"Node Type": "ModifyTable", "Operation": operation, "Relation Name": table}:
            return f"{operation.lower()} {table}"
        case {"Node Type": "Seq Scan", "Relation Name": table}:
            return f"SEQ {table}"
        case {"Node Type": "Sort"}:
            return kind
    return ""


async def explained(url: str, images: int, outputs: int, full: str | None) -> bool:
    """Fill the tables and print each query's plan; returns whether all plans are as intended."""
    async with superuser(url) as connection:
        began = time.perf_counter()
        subjects = await fill(connection, images, outputs)
        counts = [
            f"{(await connection.execute(text(f'SELECT count(*) FROM {table}'))).scalar_one():,} {table}"  # noqa: S608 — constant table names
            for table in ("images", "thumbnails", "removals")
        ]
        states = text("SELECT status, count(*), count(due_at) FROM images GROUP BY status ORDER BY status")
        for status, number, unfinished in await connection.execute(states):
            counts.append(f"{number:,} {status}{' (unfinished)' if unfinished else ''}")
        print(f"{', '.join(counts)}; filled in {time.perf_counter() - began:.0f} s\n")
    print(f"{'query':30} {'rows':>6} {'examined':>8} {'buffers':>8} {'ms':>8}  how")
    passed = True
    async with explainer(url, subjects) as server:
        for query in QUERIES:
            plans = await server.plans(query)
            rows = sum(plan.tree["Actual Rows"] for plan in plans)
            complaint = query.complaint(plans)
            passed = passed and complaint is None
            print(
                f"{query.name:30} {rows:>6.0f} {sum(plan.examined for plan in plans):>8} "
                f"{sum(plan.buffers for plan in plans):>8} {sum(plan.milliseconds for plan in plans):>8.2f}  "
                f"{steps(plans)}{f'   <-- {complaint}' if complaint else ''}"
            )
            if query.name == full:
                for plan in plans:
                    print(f"\n{plan.statement}\n{json.dumps(plan.tree, indent=2)}\n")
    return passed


def main() -> None:
    """Start a server, fill it, and print the plans."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=1_000_000, help="rows of the table (default 1,000,000)")
    options.add_argument("--outputs", type=int, default=3, help="thumbnails of each image (default 3)")
    options.add_argument("--full", metavar="QUERY", help="also print the whole plan of this query")
    given = options.parse_args()
    with PostgresServer(new_folder(), fsync=False) as server:
        upgrade(server.url)
        if not asyncio.run(explained(server.url, given.images, given.outputs, given.full)):
            sys.exit("not every query has the intended plan")


if __name__ == "__main__":
    main()
