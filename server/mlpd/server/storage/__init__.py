"""What a server keeps: its database and its files."""
