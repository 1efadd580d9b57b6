"""What shards must find again when a machine is replaced, beside the checkpoints of their model."""

from checkpointer.store import Files


class StoredState:
    """`paramserver.ports.StateStore` over the store of checkpoints: `<model>/state/<name>`."""

    def __init__(self, files: Files, model: str) -> None:
        self._files, self._model = files, model

    def read(self, name: str) -> bytes | None:
        try:
            return self._files.read(f"{self._model}/state/{name}")
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        self._files.write(f"{self._model}/state/{name}", data)
