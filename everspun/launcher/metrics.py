"""What a launcher exports to Prometheus of the processes it watches, computed when it is asked
for."""

from collections.abc import Callable
from typing import Any

from everspun.config import RunConfig
from stream import RoleMetrics, listen, start_metrics


class LauncherMetrics(RoleMetrics):
    """`said` is `Launcher.said`, `input_faults` how many things are wrong with the inputs."""

    def __init__(
        self, said: Callable[[], dict[str, Any]], input_faults: Callable[[], int] = int
    ) -> None:
        super().__init__()
        self._said = said
        self._listens = self._served = False
        self._down = self.gauge(
            "everspun_launcher_processes_down", "processes that are not up", "process"
        )
        self._failing = self.gauge(
            "everspun_launcher_processes_failing", "processes that keep ending", "process"
        )
        self._restarts = self.gauge(
            "everspun_launcher_restarts", "restarts since the launcher began", "process"
        )
        troubles = self.gauge(
            "everspun_launcher_troubles", "things that it could not do, and tries again"
        )
        silent = self.gauge("everspun_launcher_stream_silent_s", "since the last event, s")
        stopped = self.gauge(
            "everspun_launcher_stream_stopped",
            "1 where the usual rate of this hour says that the stream stopped",
        )
        inputs = self.gauge(
            "everspun_launcher_input_faults",
            "things wrong with broker, topics and open transactions, as status says",
        )
        inputs.set_function(lambda: float(input_faults()))
        troubles.set_function(lambda: len(self._said()["troubles"]))
        silent.set_function(lambda: float(self._said()["stream"].get("silent_s", 0.0)))
        stopped.set_function(lambda: float(bool(self._said()["stream"].get("stopped"))))

    def export(self, run: RunConfig) -> None:
        """Serve the processes of now, from the first call on that finds the port free. Raises
        PortTaken and OSError."""
        if run.metrics_port and not self._listens:
            listen(run.metrics_host, run.port_of("launcher", 0), "launcher-0")
            self._listens = True
        if not self._served:
            start_metrics(run.dir, "launcher", 0, self)
            self._served = True
        self.look()

    def look(self) -> None:
        """Take over the processes of now: they come and go."""
        for gauge in (self._down, self._failing, self._restarts):
            gauge.clear()
        for name, one in self._said()["processes"].items():
            self._down.labels(process=name).set(one["state"] != "up")
            self._failing.labels(process=name).set(one["state"] == "failing")
            self._restarts.labels(process=name).set(one["restarts"])
