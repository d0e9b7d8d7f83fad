"""`isthmus id`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import output_options, storage_options

if TYPE_CHECKING:
    from .options import StorageOptions
    from .output import Output


@click.command("id")
@storage_options
@output_options
def show_id(*, storage: StorageOptions, output: Output) -> None:
    """Print the peer id of this machine's node, making its key if there is none yet.

    \b
    Examples:
      isthmus id
      isthmus id --identity other.key --json
    """
    from ...transports.core.keys import PrivateKey
    from ...transports.core.peer_id import PeerId
    from ..keystore import DataDir, explained, load_or_create
    from .interrupts import raise_keyboard_interrupt

    path = storage.identity or storage.configured
    if path is None and storage.data_dir is not None:
        path = DataDir(storage.data_dir).key_path
    is_new = path is None
    if path is not None:
        with explained(path):
            is_new = not path.exists()
    # Nothing is left behind if it is interrupted while it makes a key.
    raise_keyboard_interrupt()
    key = PrivateKey.generate() if path is None else load_or_create(path)
    peer_id = PeerId.from_public_key(key.public_key)
    key_path = None if path is None else str(path.absolute())
    output.result({"peer_id": str(peer_id), "key_path": key_path, "created": is_new})
    output.line(str(peer_id))
