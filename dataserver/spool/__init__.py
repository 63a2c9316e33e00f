"""The drop directory: what lies there, what it holds, and how a file leaves it.

``directory.Spool`` lists, reads, acknowledges and sets aside; ``doorbell.Doorbell`` says
when to look; ``waiting.Waiting`` remembers what was found incomplete; ``rejected.Rejected``
keeps what was set aside; ``lock.InstanceLock`` makes sure that only one process does all this.
"""
