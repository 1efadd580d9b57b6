"""Processes whose loops hang, by their own word (`/live`): what they do is written into their logs,
and they are ended. The launcher starts them again, as whatever else ends."""

import http.client
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

#: Between two looks, s; one that hangs at two in a row is ended. Who was stopped and goes on says
#: for a moment that it hangs.
LOOK_S = 5.0
#: Who does not answer within this is not judged: a busy machine is slow, and `everspun status` says
#: who does not answer.
ANSWER_S = 2.0
_ANSWER_BYTES_MAX = 65_536
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

#: What a process says of itself at this address: "" = it lives, or does not answer.
Ask = Callable[[str, int], str]


def ask_live(host: str, port: int) -> str:
    """Why the process at this address does not live, in its words; "" if it does, or says
    nothing."""
    where = f"[{host}]" if ":" in host else host
    try:
        _DIRECT.open(f"http://{where}:{port}/live", timeout=ANSWER_S).close()
    except urllib.error.HTTPError as answer:
        with answer:
            return _why(answer)
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    return ""


def _why(answer: urllib.error.HTTPError) -> str:
    if answer.code != http.client.SERVICE_UNAVAILABLE:
        return ""
    try:
        return str(json.loads(answer.read(_ANSWER_BYTES_MAX))["why"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return "it says that it does not live"


class HangWatch:
    """Told by looks who hangs. `describe` makes a process write into its log what it does, and
    `end` ends it; both are given its name, and `end` why."""

    def __init__(
        self,
        describe: Callable[[str], None],
        end: Callable[[str, str], None],
        ask: Ask = ask_live,
    ) -> None:
        self._describe, self._end, self._ask = describe, end, ask
        self._hung: dict[str, int] = {}  # name -> pid of who hung at the last look

    def look(self, files: Mapping[str, Mapping[str, object]], pids: Mapping[str, int]) -> None:
        """`files`: role files, by process; `pids`: of those that run."""
        hung = {}
        for name, pid in pids.items():
            said = files.get(name, {})
            port = said.get("metrics_port")
            if said.get("pid") != pid or type(port) is not int or not 0 < port < 65_536:
                continue
            why = self._ask(str(said.get("metrics_host", "127.0.0.1")), port)
            if not why:
                continue
            if self._hung.get(name) == pid:
                logger.error("%s (process %d) hangs: %s; it is ended, and begins again",
                             name, pid, why)  # fmt: skip
                self._end(name, why)
            else:
                hung[name] = pid
                self._describe(name)
        self._hung = hung
