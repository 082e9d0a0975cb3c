"""Values of options with the names of secrets are masked; hyperparameters with similar names are not."""

from __future__ import annotations

import shlex

import pytest

from labbench.system.secret_options import is_secret, mask_secrets


def test_secrets_are_masked_in_the_command_line() -> None:
    line = "env API_KEY=s1 python train.py --token s2 --password=s3 --lr 0.1 auth.secret=s4 --url https://u:s5@host"
    masked = shlex.join(mask_secrets(shlex.split(line)))
    assert not any(f"s{number}" in masked for number in range(1, 6))
    assert "--lr 0.1" in masked
    assert mask_secrets(["a", "--token", "--lr", "1"]) == ["a", "--token", "--lr", "1"]


@pytest.mark.parametrize(
    "key",
    [
        *("key", "api_key", "apikey", "key2", "hfToken", "db.password", "AWS_SECRET", "AWS_SECRET_ACCESS_KEY"),
        *("credentials", "passphrase", "auth", "client_secret_value"),
    ],
)
def test_names_of_secrets_are_recognised(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        *("keyboard", "monkey", "max_tokens", "key.width", "lr", "tokenizer", "author", "token_budget"),
        *("key_dim", "num_key_value_heads"),
    ],
)
def test_other_names_are_not(key: str) -> None:
    assert not is_secret(key)
