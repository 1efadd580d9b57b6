"""The local launcher: every role as a process, started, watched, restarted and drained.

- `broker`: A broker on loopback for demos and tests
- `config_changes`: what of a changed configuration a run takes while it goes on (pure)
- `config_watch`: the configuration file of a run, looked at while it goes on
- `launcher`: the local launcher
- `locks`: one process a purpose
- `metrics`: what a launcher exports to Prometheus of the processes it watches, computed when it is
  asked for
- `process`: what a launcher knows of each process that it started
- `renewals`: processes that are to be started again, one after the other (pure)
- `restarts`: when a process that ended is started again
- `role_log`: the file that a role's process writes its log to
- `run_files`: files by which launcher, roles and commands of one host hear of each other
- `state`: what a launcher says of its processes to whoever looks
- `stored_orders`: how many processes of a role an operator wants on all hosts together
- `time_limit`: a limit of waiting that grows with the machine's load
- `targets`: where Prometheus finds the roles of a run
"""
