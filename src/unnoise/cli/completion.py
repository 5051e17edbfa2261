"""`unnoise completion`."""

from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.utils.errors import UserError, nearest

SHELLS = ("bash", "zsh", "fish")


def completion(shell: Annotated[Positional[str], arg(help="bash, zsh or fish")]) -> int:
    """Print what has a shell complete verbs and options.

    Examples: unnoise completion bash > ~/.local/share/bash-completion/completions/unnoise
              unnoise completion zsh > ~/.zfunc/_unnoise
              unnoise completion fish > ~/.config/fish/completions/unnoise.fish
    """
    from unnoise.cli import VERBS

    if shell not in SHELLS:
        raise UserError(f"unknown shell '{shell}': {nearest(shell, SHELLS)}")
    without_pairs = (tyro.conf.FlagCreatePairsOff,)
    tyro.extras.subcommand_cli_from_dict(VERBS, prog="unnoise", args=["--tyro-print-completion", shell], config=without_pairs)
    return 0
