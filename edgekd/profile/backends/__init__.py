"""One runtime a file; `edgekd.catalog.BACKENDS` names them."""
