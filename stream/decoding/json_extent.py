"""How large JSON is before a parser makes anything of it: brackets and colons of the text alone."""

from stream.kernels import Bytes, kernel

_QUOTE, _BACKSLASH, _COLON = 34, 92, 58
_OPEN_LIST, _CLOSE_LIST, _OPEN, _CLOSE = 91, 93, 123, 125


@kernel
def extent(text: Bytes) -> tuple[int, int, int]:
    """(objects and lists, how deep they are nested, most fields of one object) of JSON, whatever it
    is worth. Brackets and colons inside strings do not count."""
    opened, level, deepest, members, most = 0, 0, 0, 0, 0
    at, quoted = 0, False
    while at < len(text):
        byte = text[at]
        if quoted:
            if byte == _BACKSLASH:
                at += 1
            elif byte == _QUOTE:
                quoted = False
        elif byte == _QUOTE:
            quoted = True
        elif byte in (_OPEN, _OPEN_LIST):
            opened += 1
            level += 1
            deepest = max(deepest, level)
            members = 0
        elif byte in (_CLOSE, _CLOSE_LIST):
            level -= 1
            members = 0
        elif byte == _COLON:
            members += 1
            most = max(most, members)
        at += 1
    return opened, deepest, most
