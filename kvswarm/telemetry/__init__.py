"""The server's own metrics, recorded beside the load."""
