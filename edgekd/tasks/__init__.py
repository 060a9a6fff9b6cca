"""One task family a file: what is special about its hard loss, its metric and its example input."""
