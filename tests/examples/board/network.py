"""A network that is there."""

STA_IF = 0


class WLAN:
    def __init__(self, kind: int) -> None:
        self._up = False

    def active(self, on: bool) -> None:
        pass

    def connect(self, name: str, password: str) -> None:
        self._up = True

    def isconnected(self) -> bool:
        return self._up
