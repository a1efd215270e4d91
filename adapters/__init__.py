"""One module for each detector family; installed and imported as ``refinebox.adapters``."""
