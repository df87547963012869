"""The fan-out: a Store over several Stores."""
