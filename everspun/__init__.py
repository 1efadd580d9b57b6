"""The front door: one command line, one config file, the local launcher, the status page, the replayer and the audit.

Everything here may import every other package; nothing imports it. The wiring of roles to their packages stands in
`everspun.roles`, one function a role.
"""

__version__ = "0.1.0"
