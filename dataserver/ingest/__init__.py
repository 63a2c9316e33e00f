"""The worker of one instance: stores the packets of its drop directory until it is stopped.

``worker`` owns locks, signals and the configuration; ``pipeline`` is the work under one
configuration: ``read`` reads and parses files, ``gaps`` holds packets until the missing ones have
come, ``delivery`` stores batches, ``periodic`` runs everything else that is due.  ``report`` is
what the worker reports about itself.

This package imports nothing: the reader process, which runs ``read``, is to stay small.
"""
