"""What goes over the wire: the guard before every call, and our values as messages and back."""
