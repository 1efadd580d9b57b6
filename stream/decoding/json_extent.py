"""How large JSON is before a parser makes anything of it: brackets and colons of the text alone."""

from stream.kernels import Bytes, kernel

QUOTE, BACKSLASH, COLON = 34, 92, 58
OPEN_LIST, CLOSE_LIST, OPEN, CLOSE = 91, 93, 123, 125


@kernel
def extent(text: Bytes) -> tuple[int, int, int, int]:
    """(objects and lists, how deep they are nested, most fields of one object, fields of the
    outermost one) of JSON, whatever it is worth. Fields that are there twice count twice; brackets
    and colons inside strings do not count."""
    opened, level, deepest, members, most, outermost = 0, 0, 0, 0, 0, 0
    at, quoted = 0, False
    while at < len(text):
        byte = text[at]
        if quoted:
            if byte == BACKSLASH:
                at += 1
            elif byte == QUOTE:
                quoted = False
        elif byte == QUOTE:
            quoted = True
        elif byte in (OPEN, OPEN_LIST):
            opened += 1
            level += 1
            deepest = max(deepest, level)
            members = 0
        elif byte in (CLOSE, CLOSE_LIST):
            level -= 1
            members = 0
        elif byte == COLON:
            members += 1
            most = max(most, members)
            outermost += level == 1
        at += 1
    return opened, deepest, most, outermost
