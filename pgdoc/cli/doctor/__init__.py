"""`pgdoc doctor`: findings about a server, its database and the streams, each with the command that mends it.

`run.py` has the list of checks. A module has the checks of one subject: functions of an `Examination` that yield
findings. No check changes anything.
"""

from pgdoc.cli.doctor.finding import Finding
from pgdoc.cli.doctor.run import examine_server

__all__ = ["Finding", "examine_server"]
