"""Child processes kept alive: started in order, restarted when they die, all gone at the end."""

from worker.supervisor.probes import HOST, HttpOk, Probe, TcpOpen
from worker.supervisor.spec import ProcessSpec
from worker.supervisor.supervisor import Report, Supervisor

__all__ = ["HOST", "HttpOk", "Probe", "ProcessSpec", "Report", "Supervisor", "TcpOpen"]
