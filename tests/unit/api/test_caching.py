"""Cache policies and their Cache-Control headers."""

import pytest

from image_service.api.caching import PRIVATE_IMMUTABLE, PUBLIC_IMMUTABLE, REVALIDATE, CachePolicy


@pytest.mark.parametrize(
    ("policy", "header"),
    [
        (PRIVATE_IMMUTABLE, "private, max-age=31536000, immutable"),
        (PUBLIC_IMMUTABLE, "public, max-age=31536000, immutable"),
        (REVALIDATE, "public, no-cache"),
        (CachePolicy(public=True, max_age=60), "public, max-age=60"),
        (CachePolicy(public=False), "private, no-cache"),
    ],
)
def test_header_states_scope_and_age(policy: CachePolicy, header: str) -> None:
    assert policy.header == header


@pytest.mark.parametrize(
    ("policy", "header"),
    [
        (PRIVATE_IMMUTABLE, "private, max-age=240"),
        (PUBLIC_IMMUTABLE, "public, max-age=240"),
        (CachePolicy(public=True, max_age=60), "public, max-age=60"),
        (REVALIDATE, "public, no-cache"),
    ],
)
def test_at_most_shortens_the_age_and_ends_immutability(policy: CachePolicy, header: str) -> None:
    assert policy.at_most(240).header == header
