"""The drop directory: finding packet files, reading them, acknowledging and rejecting them.

``directory.Spool`` lists, reads, acknowledges and rejects files; ``watch.Watch`` wakes the worker
when a file arrives; ``incomplete.IncompleteFiles`` decides when an incomplete file is read again
or rejected; ``rejected.Rejected`` keeps the rejected ones; ``lock.InstanceLock`` makes sure that
only one process does all this; ``queue.count_queue`` counts the packets for other processes.
"""
