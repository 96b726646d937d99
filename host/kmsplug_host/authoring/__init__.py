"""What an author of a driver needs before there is one: a skeleton, and sessions that are kept."""
