"""``dataserver up``: the supervisor of a home's instances, and asking it."""
