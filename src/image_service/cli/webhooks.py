"""The commands ``webhooks``: register, change and test webhook endpoints, and repeat deliveries to them."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from image_service.cli.admin import Data, admin_settings
from image_service.cli.app import app
from image_service.domain.event import EventType
from image_service.domain.webhook import WebhookChange

Id = Annotated[UUID, typer.Argument(metavar="ID", help="Id of the endpoint.", show_default=False)]
Types = Annotated[
    list[EventType] | None, typer.Option("--type", help="Type of events to send; may be repeated.", show_default=False)
]

commands = typer.Typer(
    name="webhooks",
    help="Register, change and test webhook endpoints.\n\nEvents are sent to them: docs/events.md.",
    no_args_is_help=True,
)
app.add_typer(commands)


@commands.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent to.", show_default=False)],
    *,
    type_: Types = None,
    data: Data = None,
) -> None:
    """Register an endpoint, and show its secret.

    Without --type, it gets events of all types. The URL must have https:// and a public address, unless OUTBOUND_ALLOW
    names its network.
    """
    from image_service.admin.webhooks import run_add  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_add(settings, url=url, types=type_ or None, say=typer.echo)


@commands.command("list")
def list_webhooks(data: Data = None) -> None:
    """List the endpoints, oldest first: id, state, types and URL."""
    from image_service.admin.webhooks import run_list  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_list(settings, say=typer.echo)


@commands.command()
def show(webhook: Id, data: Data = None) -> None:
    """Show an endpoint: its state, and why it is disabled, if it is. Its secret is not shown."""
    from image_service.admin.webhooks import run_show  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_show(settings, webhook, say=typer.echo)


@commands.command()
def change(
    webhook: Id,
    *,
    url: Annotated[str | None, typer.Option(help="Where events are sent to from now on.", show_default=False)] = None,
    type_: Types = None,
    all_types: Annotated[bool, typer.Option("--all-types", help="Send events of all types.")] = False,
    data: Data = None,
) -> None:
    """Change the URL or the types of an endpoint. Its secret stays the same."""
    from image_service.admin.webhooks import run_change  # noqa: PLC0415 — see __init__

    if all_types and type_:
        raise typer.BadParameter("Give --type or --all-types, not both.")
    if url is None and not type_ and not all_types:
        raise typer.BadParameter("Give what is to be changed: --url, --type or --all-types.")
    with admin_settings(data) as settings:
        run_change(settings, webhook, WebhookChange(url=url, types=type_ or None, all_types=all_types), say=typer.echo)


@commands.command()
def rotate(webhook: Id, data: Data = None) -> None:
    """Replace the secret of an endpoint, and show the new one.

    For 24 hours deliveries are signed with the one before, too. If that one is known to others, rotate twice.
    """
    from image_service.admin.webhooks import run_rotate  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_rotate(settings, webhook, say=typer.echo)


@commands.command()
def disable(webhook: Id, data: Data = None) -> None:
    """Send nothing to an endpoint until it is enabled again."""
    _set_enabled(webhook, data, enabled=False)


@commands.command()
def enable(webhook: Id, data: Data = None) -> None:
    """Send events to an endpoint again that happen from now on; `replay` sends those before."""
    _set_enabled(webhook, data, enabled=True)


@commands.command()
def remove(webhook: Id, data: Data = None) -> None:
    """Delete an endpoint with its deliveries, also those that are still to be made."""
    from image_service.admin.webhooks import run_remove  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_remove(settings, webhook, say=typer.echo)


@commands.command("test")
def send_test(webhook: Id, data: Data = None) -> None:
    """Send an event of the type webhook.test to an endpoint, in the way of all events."""
    from image_service.admin.webhooks import run_test  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_test(settings, webhook, say=typer.echo)


@commands.command()
def deliveries(
    webhook: Id,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number to list.")] = 50,
    data: Data = None,
) -> None:
    """List deliveries, that of the newest event first, each with its last attempt."""
    from image_service.admin.webhooks import run_deliveries  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_deliveries(settings, webhook, limit=limit, say=typer.echo)


@commands.command()
def replay(
    webhook: Id,
    *,
    delivery: Annotated[int | None, typer.Option(min=1, help="One delivery.", show_default=False)] = None,
    since: Annotated[datetime | None, typer.Option(help="All events since a time in UTC.", show_default=False)] = None,
    data: Data = None,
) -> None:
    """Make deliveries again, whether they succeeded or not, with the same ids."""
    from image_service.admin.webhooks import run_replay  # noqa: PLC0415 — see __init__

    if (delivery is None) == (since is None):
        raise typer.BadParameter("Give --delivery NUMBER for one delivery, or --since TIME for all events since then.")
    with admin_settings(data) as settings:
        time = None if since is None else since.replace(tzinfo=UTC)
        run_replay(settings, webhook, delivery=delivery, since=time, say=typer.echo)


def _set_enabled(webhook: UUID, data: Data, *, enabled: bool) -> None:
    from image_service.admin.webhooks import run_change  # noqa: PLC0415 — see __init__

    with admin_settings(data) as settings:
        run_change(settings, webhook, WebhookChange(enabled=enabled), say=typer.echo)
